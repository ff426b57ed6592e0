package middleware_test

import (
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// attrs returns the attributes of a span, by name.
func attrs(s sdktrace.ReadOnlySpan) map[string]any {
	m := map[string]any{}
	for _, kv := range s.Attributes() {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}
