// Package calls remembers the calls of one sandbox's shim and the requests to the agent in its
// VM, and answers what caused a span.
//
// The relay's observers report ttrpc calls and requests to [Calls]. Package collate asks it for
// the [Cause] of each span of the agent and the runtime: the call that the span is part of,
// whether it is recorded, and by how much the guest's clock was off. The package learns that
// offset from spans that must lie within a call.
//
// The guest is not trusted: what it sends changes nothing about the host's own spans, and every
// answer stays within the sandbox. The package does no I/O and has its own lock, so that
// reporting a call never waits for spans. It knows no trees.
package calls
