// Package waterfall turns recorded spans into what a person reads: which runs of
// a sandbox there are (Index, Story), the tree of one of them (Build, Tree), its
// picture in a terminal (Render), and the same as OTLP/JSON (WriteJSON).
//
// It reads and writes no file and asks nobody: spans come in as OTLP messages,
// in any order, repeated, incomplete, with clocks that disagree. It trusts none
// of them: names and values come out of guests, so every text is made harmless
// before it reaches a terminal, and every result has a bound. The operator's
// tool is its caller.
package waterfall

import (
	"math"
	"strconv"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Attributes that docs/spans.md defines and this package reads.
const (
	attrService       = "service.name"
	attrHost          = "host.name"
	attrSandbox       = "shimtrace.sandbox.id"
	attrNamespace     = "shimtrace.containerd.namespace"
	attrPod           = "k8s.pod.name"
	attrPodNamespace  = "k8s.namespace.name"
	attrContainer     = "container.id"
	attrContainerName = "container.name"
	attrExec          = "shimtrace.exec.id"
	attrErrorType     = "error.type"
)

// rootName and startName are the spans that a run of a sandbox begins with.
const (
	rootName  = "sandbox start"
	startName = "shim start"
)

// agentService is the service of the spans that come from inside the VM, whose
// clock is not the host's.
const agentService = "kata-agent"

// kataService is the service of what Kata's runtime says of itself. Which runtime that
// is, the shim's spans tell.
const kataService = "kata-runtime"

// spanKey identifies a span among all traces.
type spanKey struct {
	trace trace.TraceID
	span  trace.SpanID
}

// keyOf returns the key of ids as OTLP carries them, and whether both are valid:
// 16 and 8 bytes, not all zero.
func keyOf(traceID, spanID []byte) (k spanKey, ok bool) {
	if len(traceID) != len(k.trace) || len(spanID) != len(k.span) {
		return k, false
	}
	copy(k.trace[:], traceID)
	copy(k.span[:], spanID)
	return k, k.trace.IsValid() && k.span.IsValid()
}

// lookup returns the text of the attribute key, or "".
func lookup(attrs []*commonpb.KeyValue, key string) string {
	for _, kv := range attrs {
		if kv.GetKey() == key {
			return valueText(kv.GetValue(), 0)
		}
	}
	return ""
}

func resourceText(r *resourcepb.Resource, key string) string { return lookup(r.GetAttributes(), key) }

// maxValueDepth bounds how deep nested attribute values are printed.
const maxValueDepth = 4

// valueText returns an attribute's value as text: scalars as they are, lists and
// maps in brackets.
func valueText(v *commonpb.AnyValue, depth int) string {
	if depth > maxValueDepth {
		return "…"
	}
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	case *commonpb.AnyValue_BytesValue:
		return strconv.Itoa(len(v.BytesValue)) + " bytes"
	case *commonpb.AnyValue_ArrayValue:
		text := "["
		for i, e := range v.ArrayValue.GetValues() {
			if i > 0 {
				text += ", "
			}
			if len(text) > maxText {
				return text + "…]"
			}
			text += valueText(e, depth+1)
		}
		return text + "]"
	case *commonpb.AnyValue_KvlistValue:
		text := "{"
		for i, e := range v.KvlistValue.GetValues() {
			if i > 0 {
				text += ", "
			}
			if len(text) > maxText {
				return text + "…}"
			}
			text += e.GetKey() + ": " + valueText(e.GetValue(), depth+1)
		}
		return text + "}"
	}
	return ""
}

// spanTimes returns a span's start and end in nanoseconds since 1970. A start
// that is absent or beyond what time.Time holds is 0 (unknown, and so is the
// end); an end before the start is the start.
func spanTimes(s *tracepb.Span) (start, end uint64) {
	start, end = s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano()
	if start == 0 || start > math.MaxInt64 {
		return 0, 0
	}
	if end > math.MaxInt64 {
		end = start
	}
	return start, max(start, end)
}

func failed(s *tracepb.Span) bool {
	return s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR
}
