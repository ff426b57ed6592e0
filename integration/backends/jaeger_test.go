package backends

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// TestJaeger compares what a real Jaeger answers to queries with the journal, over both of
// OTLP's protocols.
func TestJaeger(t *testing.T) {
	for name, export := range map[string][]string{
		"HTTP": {`preset = "jaeger"`},
		"gRPC": {`endpoint = "http://127.0.0.1:4317"`, `protocol = "grpc"`},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(toolset.Jaeger.Dir(needed(t, toolset.Jaeger)), "jaeger")
			s := start(t, export...)
			s.serve(func() bool { return s.answers("http://127.0.0.1:16686/")() && s.listens("127.0.0.1:4317") }, program)
			want := s.run()
			for _, w := range want {
				w.EndTimeUnixNano = max(w.EndTimeUnixNano, w.StartTimeUnixNano+1) // as Jaeger has it
			}
			var got []otlprecv.Span
			until(t, "all spans to be in Jaeger", func() bool {
				got = nil
				asked := make(map[string]bool)
				for _, w := range want {
					if asked[w.TraceID] {
						continue
					}
					asked[w.TraceID] = true
					answer, err := s.get("http://127.0.0.1:16686/api/v3/traces/" + w.TraceID)
					if err != nil {
						return false
					}
					spans, err := ofJaeger(answer)
					check(t, err)
					got = append(got, spans...)
				}
				return len(got) >= len(want)
			})
			same(t, want, got, "@jaeger@")
		})
	}
}

// ofJaeger decodes an answer of Jaeger's query API, version 3: OTLP in JSON, whose ids are
// in hexadecimal.
func ofJaeger(answer []byte) ([]otlprecv.Span, error) {
	var body struct{ Result any }
	if err := json.Unmarshal(answer, &body); err != nil {
		return nil, err
	}
	if err := hexToBase64(body.Result); err != nil {
		return nil, err
	}
	text, err := json.Marshal(body.Result)
	if err != nil {
		return nil, err
	}
	var data tracepb.TracesData
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &data); err != nil {
		return nil, fmt.Errorf("%w: %s", err, answer)
	}
	return otlprecv.Flatten(data.ResourceSpans), nil
}

func hexToBase64(value any) error {
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			if err := hexToBase64(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for key, e := range v {
			id, isText := e.(string)
			switch {
			case isText && (key == "traceId" || key == "spanId" || key == "parentSpanId"):
				raw, err := hex.DecodeString(id)
				if err != nil {
					return err
				}
				v[key] = base64.StdEncoding.EncodeToString(raw)
			default:
				if err := hexToBase64(e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
