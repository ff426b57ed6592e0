// Package middleware traces ttrpc: it makes a span for each call, reads the caller's
// context from the request, and writes the span's context into it.
//
// It does so in two ways with the same rules. Relay stands between a client and
// a server that know nothing of it and forwards frames without decoding what
// they carry; the shim uses it between containerd and the real shim.
// UnaryServerInterceptor and UnaryClientInterceptor are for programs that speak
// ttrpc themselves.
//
// It knows the messages of containerd's Task and Sandbox services: the ids in them, what
// waits, what tells of an exit. A program with services of its own says what is known of
// their methods ([WithMethods]):
//
//	middleware.WithMethods(func(service, name string) middleware.Method {
//		if service == "example.Jobs" && name == "Run" {
//			return middleware.Method{Fields: middleware.Fields{ContainerID: 1}}
//		}
//		return middleware.ContainerdMethod(service, name)
//	})
//
// An [Observer] is told of each call. It says which span the call's span is under, and adds
// attributes. Calls that are recorded only when they fail or are slow are quiet ([WithQuiet]).
// Failures that belong to a healthy life are expected ([WithExpected]). A [Switch] turns tracing
// on and off.
//
// The package uses OpenTelemetry's API only: which spans are kept and where they
// go is up to the TracerProvider it is given. It opens no file and dials nothing
// but what its caller tells it to.
package middleware

import "github.com/shimtrace/shimtrace/internal/names"

// ScopeName is the instrumentation scope of the calls' spans, this package's import path.
const ScopeName = names.CallScope
