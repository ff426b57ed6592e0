// Package otlpvalue has OTLP's attribute values as plain Go values. It is for programs
// that hold decoded messages; a relay handles only bytes (package otlpwire).
package otlpvalue

import commonpb "go.opentelemetry.io/proto/otlp/common/v1"

// Plain returns a value as a string, bool, int64, float64, []byte, []any or
// map[string]any; nil if there is none.
func Plain(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		return v.DoubleValue
	case *commonpb.AnyValue_BytesValue:
		return v.BytesValue
	case *commonpb.AnyValue_ArrayValue:
		list := make([]any, len(v.ArrayValue.GetValues()))
		for i, item := range v.ArrayValue.GetValues() {
			list[i] = Plain(item)
		}
		return list
	case *commonpb.AnyValue_KvlistValue:
		return Map(v.KvlistValue.GetValues())
	}
	return nil
}

// Map returns attributes by key. Of several with one key the last counts.
func Map(attributes []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(attributes))
	for _, a := range attributes {
		m[a.GetKey()] = Plain(a.GetValue())
	}
	return m
}
