// Package receiver receives the spans that programs of this host post in OTLP:
// containerd, the kubelet, crictl, runc's shim, any SDK.
//
// A [Receiver] serves gRPC, HTTP with protobuf and HTTP with JSON, all of them on every
// listener, which it tells apart by path and content type (opentelemetry-proto 1.x,
// docs/specification.md). It checks a post's bytes, field by field, without decoding
// them into messages, and passes views into them to a [Sink]. A post is answered once
// the Sink has taken it, so that a success means what OTLP says.
//
// gRPC's unary calls over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md) take a hundred lines here.
// google.golang.org/grpc would need a port of its own, or its ServeHTTP, which buffers
// without a bound what a client sends.
//
// Posts are not authenticated. Who may connect is decided by the peer's user, before a
// byte is read: on a Unix socket by [ListenUnix], on TCP by package route. What such a
// program sends is bounded in bytes, memory, time and pace, and costs only itself.
//
// The package does not open ports, does not know journals, sandboxes or Kata.
package receiver
