package backends

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// datadogSpan is what Datadog gets of a span.
type datadogSpan struct {
	Host     string
	Priority int
	Span     struct {
		Service, Name, Resource, Type string
		TraceID                       uint64 `json:"trace_id"`
		SpanID                        uint64 `json:"span_id"`
		ParentID                      uint64 `json:"parent_id"`
		Start, Duration               int64
		Error                         int
		Meta                          map[string]string
		Metrics                       map[string]float64
	}
}

// agentConfig is what the Datadog Agent gives its Collector when otlp_config has the HTTP
// receiver.
const agentConfig = `
receivers: {otlp: {protocols: {http: {endpoint: 127.0.0.1:4318}}}}
exporters: {otlp: {endpoint: 127.0.0.1:5003, tls: {insecure: true}, compression: none, sending_queue: {enabled: false}}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
`

// TestDatadog compares what the Datadog Agent's own code sends to Datadog with the journal:
// ids, parents, services, names, types, times, errors, events, links, attributes, the
// resource.
func TestDatadog(t *testing.T) {
	collector := filepath.Join(toolset.Collector.Dir(needed(t, toolset.Collector)), "otelcol")
	agent := filepath.Join(toolset.Datadog.Dir(needed(t, toolset.Datadog)), "datadog")
	s := start(t, `preset = "datadog"`)
	sent := filepath.Join(t.TempDir(), "sent")
	s.serve(func() bool { return s.listens("127.0.0.1:5003") }, agent, sent)
	s.serve(func() bool { return s.listens("127.0.0.1:4318") }, collector, "--config", write(t, "agent.yaml", agentConfig))
	want := s.run()
	var got []datadogSpan
	until(t, "all spans to be sent to Datadog", func() bool {
		got = nil
		text, err := os.ReadFile(sent)
		check(t, err)
		for line := range bytes.Lines(text) {
			var d datadogSpan
			if json.Unmarshal(line, &d) == nil { // otherwise it is being written
				got = append(got, d)
			}
		}
		return len(got) >= len(want)
	})
	byID := make(map[uint64]datadogSpan)
	for _, d := range got {
		byID[d.Span.SpanID] = d
	}
	if len(got) != len(want) || len(byID) != len(want) {
		t.Errorf("Datadog has got %d spans, %d different ones, the journal has %d", len(got), len(byID), len(want))
	}
	names, failed, events := make(map[string]bool), 0, 0
	for _, w := range want {
		d, there := byID[binary.BigEndian.Uint64(w.SpanId)]
		if !there {
			t.Errorf("no %s (%s)", w.Name, w.ID)
			continue
		}
		names[d.Span.Name] = true
		failed += d.Span.Error
		events += len(w.Events)
		for _, difference := range ofDatadog(w, d) {
			t.Errorf("%s: %s", w.Name, difference)
		}
	}
	if len(names) < 2 || failed == 0 || events == 0 {
		t.Errorf("%d names, %d failed, %d events: too few to compare", len(names), failed, events)
	}
}

// Of the Datadog Agent: what it makes of a span's kind. It does not know rpc.system.name,
// which says that these are calls of ttrpc.
var (
	datadogNames = map[tracepb.Span_SpanKind]string{tracepb.Span_SPAN_KIND_SERVER: "server.request", tracepb.Span_SPAN_KIND_CLIENT: "client.request", tracepb.Span_SPAN_KIND_INTERNAL: "Internal"}
	datadogTypes = map[tracepb.Span_SpanKind]string{tracepb.Span_SPAN_KIND_SERVER: "web", tracepb.Span_SPAN_KIND_CLIENT: "http", tracepb.Span_SPAN_KIND_INTERNAL: "custom"}
)

// ofDatadog returns how what Datadog has got differs from a span.
func ofDatadog(w otlprecv.Span, d datadogSpan) (all []string) {
	compare := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			all = append(all, fmt.Sprintf("%s %v, want %v", what, got, want))
		}
	}
	g := d.Span
	compare("trace", g.TraceID, binary.BigEndian.Uint64(w.TraceId[8:])) // the rest is in otel.trace_id
	parent := uint64(0)
	if w.ParentID != "" {
		parent = binary.BigEndian.Uint64(w.ParentSpanId)
	}
	compare("parent", g.ParentID, parent)
	compare("service", g.Service, w.Service())
	compare("name", g.Name, datadogNames[w.Kind])
	resource := w.Name
	if method, is := w.Attrs["rpc.method"]; is {
		resource = method.(string)
	}
	compare("resource", g.Resource, resource)
	compare("type", g.Type, datadogTypes[w.Kind])
	compare("start", g.Start, w.StartTimeUnixNano)
	compare("duration", g.Duration, w.EndTimeUnixNano-w.StartTimeUnixNano)
	isError := w.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
	compare("error", g.Error == 1, isError)
	if d.Priority < 1 {
		compare("priority", d.Priority, "at least 1, which keeps it")
	}
	compare("host", d.Host, w.Resource["host.name"])

	meta := map[string]string{
		"otel.trace_id": w.TraceID, "span.kind": strings.ToLower(strings.TrimPrefix(w.Kind.String(), "SPAN_KIND_")),
		"otel.scope.name": w.Scope,
	}
	if isError {
		meta["otel.status_code"], meta["error.msg"] = "Error", w.GetStatus().GetMessage()
	}
	for key, value := range w.Resource {
		if key != "service.name" {
			meta[key] = fmt.Sprint(value)
		}
	}
	for key, value := range w.Attrs {
		switch value := value.(type) {
		case int64:
			compare(key, g.Metrics[key], float64(value))
		default:
			meta[key] = fmt.Sprint(value)
		}
	}
	for key, value := range meta {
		compare(key, g.Meta[key], value)
	}

	var events []struct {
		Time       uint64 `json:"time_unix_nano"`
		Name       string
		Attributes map[string]any
	}
	if text := g.Meta["events"]; text != "" && json.Unmarshal([]byte(text), &events) != nil {
		compare("events", text, "JSON")
	}
	compare("events", len(events), len(w.Events))
	for i := range min(len(events), len(w.Events)) {
		e := w.Events[i]
		compare("event", fmt.Sprint(events[i].Time, events[i].Name, len(events[i].Attributes)), fmt.Sprint(e.TimeUnixNano, e.Name, len(e.Attributes)))
	}
	var links []struct {
		TraceID string `json:"trace_id"`
		SpanID  string `json:"span_id"`
	}
	if text := g.Meta["_dd.span_links"]; text != "" && json.Unmarshal([]byte(text), &links) != nil {
		compare("links", text, "JSON")
	}
	compare("links", len(links), len(w.Links))
	for i := range min(len(links), len(w.Links)) {
		compare("link", links[i].TraceID+links[i].SpanID, fmt.Sprintf("%x%x", w.Links[i].TraceId, w.Links[i].SpanId))
	}
	return all
}
