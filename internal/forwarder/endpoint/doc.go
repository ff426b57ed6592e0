// Package endpoint is what Kata's own runtimes post their spans to: the
// part of a Jaeger collector that they speak with.
//
// An [Endpoint] serves POST /api/traces over HTTP/1.1, as the Go runtime speaks it,
// and over HTTP/2 in clear text with prior knowledge, as runtime-rs does. It
// answers as soon as it has the request's body, since the code that a span measures
// waits for the answer, and decodes later. A [Decoder] turns a body, a Batch of
// jaeger.thrift in Thrift's binary protocol, into spans. docs/runtime-spans.md says
// what is kept of them.
//
// Whoever posts is a process of this host, but not a trusted one: nothing that it
// sends makes the package panic, allocate more than [Options] allow, or wait for it.
// Attributes pass by list, as the agent's do: the runtimes too print containers'
// environments into them.
//
// The package does not listen, does not know of sandboxes and sends nothing:
// Package collect gives it a listener, and takes the spans on to the relay of
// their sandbox (package route).
package endpoint
