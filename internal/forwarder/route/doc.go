// Package route brings the spans of Kata's runtimes from the host's one endpoint
// to the relays of their sandboxes.
//
// The endpoint exists once per host, as its port does, and so one process has it: the
// [Router], to which each relay has a [Link]. A relay says which sandbox it has and
// which process its runtime is, and gets that sandbox's spans in the order in which
// they came.
//
// A runtime's posts do not always say of which sandbox they are. What does tell, the
// surest first:
//
//   - the process at the other end of the connection, if it is the runtime of a
//     relay's sandbox. No word of the post counts against that;
//   - the service "kata-sb-" and the first 8 characters of the sandbox's id
//     (runtime-rs, crates/runtimes/src/tracer.rs, Kata 4.1);
//   - the trace, if an earlier post told whose it is (the Go runtime has one trace
//     for each sandbox);
//   - the sandbox's id in one of the spans (the Go runtime's attribute sandbox_id).
//
// What nothing tells of is held until something does, bounded in time and bytes.
//
// The package opens no port and knows no HTTP: who decodes posts calls Router.Take.
// Its callers are the operator's tool, which has the Router, and the relays.
package route
