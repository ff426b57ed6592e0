package client

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/openzipkin/zipkin-go/model"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpvalue"
)

// zipkinSpans returns spans in Zipkin's model, as OpenTelemetry's specification maps
// them ("OpenTelemetry to Zipkin Transformation", trace/sdk_exporters/zipkin.md), with
// two additions: what Zipkin has no place for, the resource's attributes and the links,
// become tags, as in the OpenTelemetry Collector.
//
// A span without a start or a valid id is left out, and counted: Zipkin refuses the
// whole upload for it. Zipkin has microseconds, and names in lower case.
func zipkinSpans(all []*tracepb.ResourceSpans) (spans []model.SpanModel, left int) {
	spans = []model.SpanModel{}
	for _, rs := range all {
		service, common := zipkinResource(rs.GetResource())
		for _, ss := range rs.GetScopeSpans() {
			tags := maps.Clone(common)
			putTag(tags, "otel.scope.name", ss.GetScope().GetName())
			putTag(tags, "otel.scope.version", ss.GetScope().GetVersion())
			for _, s := range ss.GetSpans() {
				if span, ok := zipkinSpan(s, service, maps.Clone(tags)); ok {
					spans = append(spans, span)
				} else {
					left++
				}
			}
		}
	}
	return spans, left
}

// zipkinResource returns the service's name, and the other attributes as tags.
func zipkinResource(r *resourcepb.Resource) (service string, tags map[string]string) {
	tags = make(map[string]string)
	for _, a := range r.GetAttributes() {
		tags[a.GetKey()] = zipkinValue(a.GetValue())
	}
	service = tags[names.Service]
	delete(tags, names.Service)
	return service, tags
}

var zipkinKinds = map[tracepb.Span_SpanKind]model.Kind{
	tracepb.Span_SPAN_KIND_CLIENT:   model.Client,
	tracepb.Span_SPAN_KIND_SERVER:   model.Server,
	tracepb.Span_SPAN_KIND_PRODUCER: model.Producer,
	tracepb.Span_SPAN_KIND_CONSUMER: model.Consumer,
}

func zipkinSpan(s *tracepb.Span, service string, tags map[string]string) (model.SpanModel, bool) {
	id := zipkinID(s.GetSpanId())
	if len(s.GetTraceId()) != 16 || id == 0 || s.GetStartTimeUnixNano() == 0 {
		return model.SpanModel{}, false
	}
	sampled := true
	span := model.SpanModel{
		SpanContext: model.SpanContext{
			TraceID: model.TraceID{High: binary.BigEndian.Uint64(s.TraceId), Low: binary.BigEndian.Uint64(s.TraceId[8:])},
			ID:      id,
			Sampled: &sampled,
		},
		Name:      s.GetName(),
		Kind:      zipkinKinds[s.GetKind()],
		Timestamp: time.Unix(0, int64(s.StartTimeUnixNano)),
		// Zipkin takes a span without a duration for one that is not over.
		Duration:      max(time.Duration(s.GetEndTimeUnixNano()-s.StartTimeUnixNano), time.Microsecond),
		LocalEndpoint: &model.Endpoint{ServiceName: service},
		Tags:          tags,
	}
	if parent := zipkinID(s.GetParentSpanId()); parent != 0 {
		span.ParentID = &parent
	}
	for _, a := range s.GetAttributes() {
		tags[a.GetKey()] = zipkinValue(a.GetValue())
	}
	// Any value of this tag means a failure, even "false".
	delete(tags, "error")
	switch s.GetStatus().GetCode() {
	case tracepb.Status_STATUS_CODE_OK:
		tags["otel.status_code"] = "OK"
	case tracepb.Status_STATUS_CODE_ERROR:
		tags["otel.status_code"] = "ERROR"
		tags["error"] = s.GetStatus().GetMessage()
	}
	putTag(tags, "w3c.tracestate", s.GetTraceState())
	putCount(tags, "otel.dropped_attributes_count", s.GetDroppedAttributesCount())
	putCount(tags, "otel.dropped_events_count", s.GetDroppedEventsCount())
	putCount(tags, "otel.dropped_links_count", s.GetDroppedLinksCount())
	for i, l := range s.GetLinks() {
		tags[fmt.Sprint("otlp.link.", i)] = hex.EncodeToString(l.GetTraceId()) + "|" + hex.EncodeToString(l.GetSpanId())
	}
	for _, e := range s.GetEvents() {
		span.Annotations = append(span.Annotations, model.Annotation{
			Timestamp: time.Unix(0, int64(e.GetTimeUnixNano())),
			Value:     zipkinEvent(e),
		})
	}
	return span, true
}

// zipkinEvent returns an event's name, or with attributes {"name": {key: value, …}}, as
// the specification has it.
func zipkinEvent(e *tracepb.Span_Event) string {
	if len(e.GetAttributes()) == 0 {
		return e.GetName()
	}
	text, err := json.Marshal(map[string]any{e.GetName(): otlpvalue.Map(e.GetAttributes())})
	if err != nil {
		return e.GetName() // a number that JSON lacks
	}
	return string(text)
}

func zipkinID(id []byte) model.ID {
	if len(id) != 8 {
		return 0
	}
	return model.ID(binary.BigEndian.Uint64(id))
}

func putTag(tags map[string]string, key, value string) {
	if value != "" {
		tags[key] = value
	}
}

func putCount(tags map[string]string, key string, n uint32) {
	if n > 0 {
		tags[key] = strconv.FormatUint(uint64(n), 10)
	}
}

// zipkinValue returns an attribute's value as text: a list or a map as JSON, and two quotation
// marks for no value.
func zipkinValue(v *commonpb.AnyValue) string {
	plain := otlpvalue.Plain(v)
	switch text := plain.(type) {
	case nil:
		return `""`
	case string:
		return text
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return fmt.Sprint(plain)
	}
	return string(text)
}
