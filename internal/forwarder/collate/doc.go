// Package collate makes a tree of the spans of one sandbox's Kata runtime, and below that
// one of the spans of its agent.
//
// Neither knows of the calls that cause its work. Most of the agent's requests are roots of
// traces of their own, children arrive before their parents, some parents never do, and a
// child may even name a trace that its parent is not in. A [Collator] holds each span until
// what is above it is known, asks package calls what caused the top of that, and hands the
// result to a sink as OTLP. A source is the tree of one of the two; the agent's spans wait
// for those of the runtime that they name, and follow them. What cannot be known in time is
// inferred, so that a pod's trace is whole and can be read while the pod runs; a parent
// that never comes has a placeholder.
//
// Where the sandbox is isolated, or of an unknown VM, spans stay in traces of their own
// (trace.go), linked to what would have been above them.
//
// The guest is not trusted: whatever it sends costs bounded memory and time, is
// shown as a tree, and stays in the traces of its own sandbox. A Collator holds
// the contexts of no other, and writes no trace id that the guest chose unless
// the sandbox uses it (see [calls.Calls.AddTrace]).
//
// The package does no I/O and starts no goroutine. The forwarder feeds it spans
// (package agent) and ticks it, the endpoint's link feeds it the runtime's, and the sink is
// the journal.
package collate
