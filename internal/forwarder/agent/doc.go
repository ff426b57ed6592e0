// Package agent reads the spans that the Kata agent sends out of its VM.
//
// A [Reader] splits one agent's connection into payloads; a [Decoder] turns a
// payload into a [span.Span], whichever of the wire's two encodings it is in (Kata
// 2.1 to 3.28: bincode of the opentelemetry crate 0.14; since 3.29: JSON of
// 0.17). docs/kata-span-protocol.md describes the wire.
//
// The guest is not trusted. Nothing it sends makes the package panic, allocate
// more than [Options] allow (a span says what it costs), or produce OTLP that a collector
// refuses. A value that is not on the list of attributes is stepped over, never copied.
//
// The package opens no sockets, decides nothing about traces and sends nothing:
// the forwarder hands it connections, gives its spans their place in the
// sandbox's trace, and exports them.
package agent
