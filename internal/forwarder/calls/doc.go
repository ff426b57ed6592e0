// Package calls remembers what was asked of one sandbox's shim, and of the agent in its
// VM, and answers what caused a span.
//
// The relay's observers tell [Calls] of ttrpc calls and requests. Package collate asks
// it for the [Cause] of spans that the agent and the runtime have sent: which call they
// are part of, whether they are wanted, and by how much the guest's clock was off. The
// clock is learned here, from what must have been within what.
//
// The guest is not trusted: what it says bounds nothing of the host's, and an answer is
// always of the same sandbox. Nothing waits here: the package does no I/O, and its lock
// is its own, so that telling of a call never waits for spans. It knows no trees.
package calls
