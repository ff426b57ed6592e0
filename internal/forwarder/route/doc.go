// Package route brings the spans of Kata's runtimes from the host's one endpoint
// to the relays of their sandboxes.
//
// A host has one endpoint, so one process has it: the [Router]. Each relay has a [Link]
// to the Router. A relay names its sandbox and its runtime's processes, and gets that
// sandbox's spans in the order in which they came.
//
// A runtime's posts do not always name their sandbox. What identifies it, the surest
// first:
//
//   - the process at the other end of the connection, if it is the runtime of a
//     relay's sandbox. No word of the post counts against that;
//   - the service "kata-sb-" and the first 8 characters of the sandbox's id
//     (runtime-rs, crates/runtimes/src/tracer.rs, Kata 4.1);
//   - the trace, if an earlier post told whose it is (the Go runtime has one trace
//     for each sandbox);
//   - the sandbox's id in one of the spans (the Go runtime's attribute sandbox_id).
//
// A post that nothing identifies is held until something does, bounded in time and bytes.
//
// The package knows no HTTP: the code that decodes posts calls Router.Take. The
// operator's tool has the Router; relays have Links.
package route
