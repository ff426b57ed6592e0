package endpoint

import (
	"math"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// DecodeOTLP turns a TracesData message of a runtime into spans, as Decode does with
// what runtimes post to Jaeger today. The caller has checked the message, and bounds its
// length. Runtimes send a few hundred spans, so decoding it as a whole is cheap enough.
func (d *decoder) DecodeOTLP(data []byte) (spans []span.Span, err error) {
	t := new(tracepb.TracesData)
	if err := proto.Unmarshal(data, t); err != nil {
		return nil, err
	}
	clear(d.lost)
	d.exporter = 0
	for _, rs := range t.ResourceSpans {
		for _, ss := range rs.GetScopeSpans() {
			for _, from := range ss.GetSpans() {
				reason, exporter := d.fromOTLP(from, &d.scratch)
				if reason == 0 && !exporter && len(spans) == d.opts.MaxSpans {
					reason = losses.TooMany
				}
				switch {
				case exporter:
					d.exporter++
				case reason != 0:
					d.lost[reason]++
				default:
					spans = append(spans, d.scratch)
				}
			}
		}
	}
	d.count(len(data), len(spans))
	return spans, nil
}

// fromOTLP reads a span, as decoder.span does.
func (d *decoder) fromOTLP(from *tracepb.Span, s *span.Span) (lost losses.Reason, exporter bool) {
	*s = span.Span{} // its memory belongs to the caller by now
	b := d.builder
	b.Begin(s)
	copy(s.TraceID[:], from.TraceId)
	copy(s.SpanID[:], from.SpanId)
	copy(s.ParentID[:], from.ParentSpanId)
	s.TraceFlags = uint8(from.Flags & 1)
	s.Start, s.End = min(from.StartTimeUnixNano, math.MaxInt64), min(from.EndTimeUnixNano, math.MaxInt64)
	b.TraceState([]byte(from.TraceState))
	t := traits{name: []byte(from.Name)}
	for _, a := range from.Attributes {
		d.attribute(tagOf(a), &t)
	}
	b.DroppedAttributes(from.DroppedAttributesCount)
	for _, e := range from.Events {
		b.BeginEvent()
		b.EventName(d.text([]byte(e.Name)))
		for _, a := range e.Attributes {
			d.put(tagOf(a))
		}
		b.DroppedAttributes(e.DroppedAttributesCount)
		b.EventTime(min(e.TimeUnixNano, math.MaxInt64))
		b.EndEvent()
	}
	b.DroppedEvents(from.DroppedEventsCount)
	for _, l := range from.Links {
		var ref reference
		copy(ref.traceID[:], l.TraceId)
		copy(ref.spanID[:], l.SpanId)
		d.link(ref)
	}
	b.DroppedLinks(from.DroppedLinksCount)
	if code := from.Status.GetCode(); code == tracepb.Status_STATUS_CODE_ERROR {
		t.failed, t.message = true, []byte(from.Status.Message)
	} else if code == tracepb.Status_STATUS_CODE_OK {
		t.ok = true
	}
	switch {
	case t.exporter():
		b.Abandon()
		return 0, true
	case s.TraceID == [16]byte{} || s.SpanID == [8]byte{}:
		b.Abandon()
		return losses.NoIdentity, false
	}
	if s.Kind = from.Kind; s.Kind == tracepb.Span_SPAN_KIND_UNSPECIFIED {
		s.Kind = tracepb.Span_SPAN_KIND_INTERNAL
	}
	d.finish(s, &t)
	if s.Cost() > maxSize {
		return losses.TooLarge, false
	}
	return 0, false
}

// tagOf returns an attribute as the tag that it would be in Jaeger's protocol.
func tagOf(a *commonpb.KeyValue) (g tag) {
	g.key = []byte(a.Key)
	switch v := a.Value.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		g.is, g.str = isString, []byte(v.StringValue)
	case *commonpb.AnyValue_BoolValue:
		g.is, g.bool = isBool, v.BoolValue
	case *commonpb.AnyValue_IntValue:
		g.is, g.long = isLong, v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		g.is, g.double = isDouble, v.DoubleValue
	case *commonpb.AnyValue_BytesValue:
		g.is, g.binary = isBinary, v.BytesValue
	default: // a list: only its size can be kept
		g.is, g.binary = isBinary, make([]byte, proto.Size(a.Value))
	}
	return g
}
