package journal

import tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

// CountSpans returns the number of spans in t.
func CountSpans(t *tracepb.TracesData) (n int) {
	for _, rs := range t.GetResourceSpans() {
		for _, ss := range rs.GetScopeSpans() {
			n += len(ss.GetSpans())
		}
	}
	return n
}

// Split divides t into two halves that share its spans, resources and scopes, for a
// receiver with a size limit. It reports false for a single span.
func Split(t *tracepb.TracesData) (a, b *tracepb.TracesData, ok bool) {
	data := func(rs ...*tracepb.ResourceSpans) *tracepb.TracesData {
		return &tracepb.TracesData{ResourceSpans: rs}
	}
	if n := len(t.ResourceSpans); n != 1 {
		return data(t.ResourceSpans[:n/2]...), data(t.ResourceSpans[n/2:]...), n > 1
	}
	resource := func(ss ...*tracepb.ScopeSpans) *tracepb.TracesData {
		rs := t.ResourceSpans[0]
		return data(&tracepb.ResourceSpans{Resource: rs.Resource, SchemaUrl: rs.SchemaUrl, ScopeSpans: ss})
	}
	scopes := t.ResourceSpans[0].ScopeSpans
	if n := len(scopes); n != 1 {
		return resource(scopes[:n/2]...), resource(scopes[n/2:]...), n > 1
	}
	scope := func(spans []*tracepb.Span) *tracepb.TracesData {
		ss := scopes[0]
		return resource(&tracepb.ScopeSpans{Scope: ss.Scope, SchemaUrl: ss.SchemaUrl, Spans: spans})
	}
	spans := scopes[0].Spans
	n := len(spans)
	return scope(spans[:n/2]), scope(spans[n/2:]), n > 1
}
