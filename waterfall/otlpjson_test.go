package waterfall

import (
	"bytes"
	"encoding/json"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// TestWriteJSON holds the document against the specification's example form:
// ids in hex, enumerations as numbers, 64-bit integers as strings, and bytes in
// base64 also where an attribute is called like an id.
func TestWriteJSON(t *testing.T) {
	s := &script{}
	s.span(resource("containerd-shim-runc-v2"), "s", "b", "a", "b", 0, 1, linked("t", "x"), wrong("NOT_FOUND", "no"),
		with(&commonpb.KeyValue{Key: "traceId", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BytesValue{BytesValue: []byte{255}}}}))
	s.spans[0].ScopeSpans[0].Spans[0].Kind = tracepb.Span_SPAN_KIND_SERVER
	s.span(resource("containerd-shim-runc-v2"), "s", "a", "", "a", 0, 1)
	var out bytes.Buffer
	if err := WriteJSON(&out, s.spans); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) {
		t.Fatalf("no JSON: %s", out.Bytes())
	}
	golden(t, "spans.json", out.Bytes())
}
