// Package agent reads the spans that the Kata agent sends out of its VM.
//
// A [Reader] splits one agent's connection into payloads. A [Decoder] turns a payload into a
// [span.Span], in either of the wire's two encodings (Kata 2.1 to 3.28: bincode of the
// opentelemetry crate 0.14; since 3.29: JSON of 0.17). docs/kata-span-protocol.md describes the
// wire.
//
// The guest is not trusted. Nothing that it sends makes the package panic, allocate more than
// [Options] allow (a span states its cost), or produce OTLP that a collector refuses. The value
// of an attribute that is not on the keep-list is skipped, never copied.
//
// The package opens no sockets, decides nothing about traces and sends nothing: the forwarder
// hands it connections, places its spans in the sandbox's trace, and exports them.
package agent
