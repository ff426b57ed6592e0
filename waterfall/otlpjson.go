package waterfall

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// WriteJSON writes spans as one OTLP/JSON document (TracesData), followed by a
// newline, for any program that reads OTLP files. It holds the document in memory
// one ResourceSpans at a time.
//
// OTLP/JSON is protobuf's JSON with two differences: trace and span ids are
// hexadecimal, and enumerations are numbers (opentelemetry-proto 1.x,
// docs/specification.md, "JSON Protobuf Encoding").
func WriteJSON(w io.Writer, spans []*tracepb.ResourceSpans) error {
	if _, err := io.WriteString(w, `{"resourceSpans":[`); err != nil {
		return err
	}
	for i, rs := range spans {
		doc, err := otlpJSON(rs)
		if err != nil {
			return fmt.Errorf("spans as JSON: %w", err)
		}
		if i > 0 {
			doc = append([]byte{','}, doc...)
		}
		if _, err := w.Write(doc); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]}\n")
	return err
}

func otlpJSON(rs *tracepb.ResourceSpans) ([]byte, error) {
	text, err := protojson.MarshalOptions{UseEnumNumbers: true}.Marshal(rs)
	if err != nil {
		return nil, err
	}
	// Decoding and encoding again also takes out protojson's white space, which
	// differs between builds on purpose.
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if err := hexIDs(doc); err != nil {
		return nil, err
	}
	return json.Marshal(doc)
}

// hexIDs rewrites the ids of spans and links from base64. Attributes are lists
// of {key, value}, so no name of theirs is a key of an object here.
func hexIDs(v any) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := hexIDs(e); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, key := range []string{"traceId", "spanId", "parentSpanId"} {
			if text, ok := v[key].(string); ok {
				id, err := base64.StdEncoding.DecodeString(text)
				if err != nil {
					return err
				}
				v[key] = hex.EncodeToString(id)
			}
		}
		for _, e := range v {
			if err := hexIDs(e); err != nil {
				return err
			}
		}
	}
	return nil
}
