// Package collate makes a tree of the spans of one sandbox's Kata runtime, and below it a tree
// of the spans of its agent.
//
// Neither knows the calls that cause its work. Most of the agent's requests are roots of their
// own traces, children arrive before their parents, some parents never arrive, and a child may
// even name a trace that its parent is not in. A [Collator] holds each span until its ancestors
// are known, asks package calls for the cause of the topmost one, and hands the result to a
// sink as OTLP. There are two sources, the runtime and the agent; the agent's spans wait for
// the runtime's spans that they name, and follow them. What is not known in time is inferred,
// so that a pod's trace is complete and readable while the pod runs. A parent that never
// arrives gets a placeholder.
//
// Spans of an isolated sandbox or an unknown VM stay in their own traces (trace.go), linked to
// their would-be parents.
//
// The guest is not trusted: whatever it sends costs bounded memory and time, is shown as a
// tree, and stays in the traces of its own sandbox. A Collator holds the contexts of no other
// sandbox, and writes no trace id that the guest chose unless the sandbox uses it (see
// [calls.Calls.AddTrace]).
//
// The package does no I/O and starts no goroutine. The forwarder feeds it the agent's spans and
// ticks it, the endpoint's link feeds it the runtime's spans, and the sink is the journal.
package collate
