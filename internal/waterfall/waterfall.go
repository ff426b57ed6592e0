// Package waterfall turns recorded spans into what a person reads: which runs of
// a sandbox there are (Index, Story), the tree of one of them (Builder, Tree), its
// picture in a terminal (Render), and the same as OTLP/JSON (JSONWriter, WriteJSON).
//
// It reads and writes no file and asks nobody: spans come in as OTLP messages,
// in any order, repeated, incomplete, with clocks that disagree. It trusts none
// of them: names and values come out of guests, so every text is made harmless
// before it reaches a terminal, and every result has a bound. The operator's
// tool is its caller.
//
// Journals are as large as others made them, so spans come in as bytes and are read
// field by field: what is kept of them has a bound.
package waterfall

import "go.opentelemetry.io/otel/trace"

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
	attrStatusCode    = "rpc.response.status_code"
	attrExpected      = "shimtrace.expected"
	attrClaimed       = "shimtrace.claimed.container.id"
	attrClaimedExec   = "shimtrace.claimed.exec.id"
	attrClipped       = "shimtrace.clipped"
	attrFirstStart    = "shimtrace.original.start_time_unix_nano"
	attrFirstEnd      = "shimtrace.original.end_time_unix_nano"
	attrRuntime       = "shimtrace.runtime"
	attrRun           = "service.instance.id"
)

// Spans of the shim's own that say where a story begins and ends.
const (
	rootName  = "sandbox start"
	startName = "shim start"
	onName    = "tracing switched on"
	offName   = "tracing switched off"
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
