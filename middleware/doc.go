// Package middleware traces ttrpc: a span for each call, the caller's context
// out of the request, the span's context into it.
//
// It does so in two ways with the same rules. Relay stands between a client and
// a server that know nothing of it and forwards frames without decoding what
// they carry; the shim uses it between containerd and the real shim.
// UnaryServerInterceptor and UnaryClientInterceptor are for programs that speak
// ttrpc themselves, a shim or an agent's client.
//
// The package uses OpenTelemetry's API only: which spans are kept and where they
// go is up to the TracerProvider it is given. It opens no file and dials nothing
// but what its caller tells it to.
package middleware

// ScopeName is the instrumentation scope of the spans of calls.
const ScopeName = "github.com/shimtrace/shimtrace/middleware"
