package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// maxCause bounds an annotation with a context, in bytes.
const maxCause = 8 << 10

// Cause returns the context of what caused the pod, as the first of its annotations with
// these keys has it: a W3C traceparent, or a JSON object of headers with one
// (kubernetes-sigs/agent-sandbox, internal/metrics, TraceContextAnnotation). The error
// says which annotations are there and have none; it does not quote them.
func Cause(notes state.Annotations, keys []string) (cause trace.SpanContext, err error) {
	for _, key := range keys {
		value, there := notes[key]
		if !there {
			continue
		}
		if cause = parseCause(value); cause.IsValid() {
			return cause, err
		}
		err = errors.Join(err, fmt.Errorf("annotation %s: neither a W3C traceparent (00-<trace id>-<span id>-01) nor a JSON object with one: it is ignored", key))
	}
	return trace.SpanContext{}, err
}

func parseCause(value string) trace.SpanContext {
	if len(value) > maxCause {
		return trace.SpanContext{}
	}
	const header = "traceparent"
	text := strings.TrimSpace(value)
	if strings.HasPrefix(text, "{") {
		var headers map[string]string
		if err := json.Unmarshal([]byte(text), &headers); err != nil {
			return trace.SpanContext{}
		}
		text = headers[header]
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{header: text})
	return trace.SpanContextFromContext(ctx)
}
