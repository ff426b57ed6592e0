// Package endpoint receives the spans of Kata's runtimes: it is the part of a Jaeger
// collector that they talk to.
//
// An [Endpoint] serves POST /api/traces over HTTP/1.1, which the Go runtime speaks, and
// over clear-text HTTP/2 with prior knowledge, which runtime-rs speaks. The code that a
// span measures waits for the answer. So the Endpoint answers as soon as it has the
// request's body and decodes later. A decoder turns a body, a Batch of jaeger.thrift in
// Thrift's binary protocol, into spans. docs/runtime-spans.md says what is kept of them.
//
// Posts come from processes of this host, which are not trusted: nothing that they send
// makes the package panic, allocate more than [Options] allow, or wait for them.
// Attributes are kept by keep-list, as the agent's are: the runtimes also print
// containers' environments into them.
//
// The package does not open ports, does not know sandboxes and sends nothing. Package
// collect gives it a listener and passes the spans to package route, which finds the
// relay of their sandbox.
package endpoint
