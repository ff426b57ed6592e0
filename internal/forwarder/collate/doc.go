// Package collate gives the spans of one sandbox's Kata agent their place in the
// sandbox's trace.
//
// The agent knows nothing of the calls that cause its work: most of its RPCs are
// roots of traces of their own, children arrive before their parents, some
// parents never do, and a child may even name a trace that its parent is not in.
// A [Collator] is told of the shim's calls and of the agent's spans, holds each
// span until what is above it is known, puts the top of that under the call that
// caused it, and hands the result to a sink as OTLP. What cannot be known in time
// is inferred, so that a pod's trace is whole and can be read while the pod runs.
//
// The guest is not trusted: whatever it sends costs bounded memory and time, is
// shown as a tree, and stays in the traces of its own sandbox. A Collator holds
// the contexts of no other, and writes no trace id that the guest chose unless
// the sandbox uses it (see [Collator.Own]).
//
// The package does no I/O and starts no goroutine. The forwarder feeds it spans
// (package agent) and ticks it, the relay's observer tells it of calls, and
// the sink is the journal.
package collate
