// Package middleware traces ttrpc: a span for each call, the caller's context
// out of the request, the span's context into it.
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
// What the calls are about is an [Observer]'s to know: which span a call belongs under,
// what else its span should say, which calls follow from it. What is not worth a span
// unless it fails is quiet ([WithQuiet]), what fails in a healthy life is expected
// ([WithExpected]), and a [Switch] turns all of it on and off.
//
// The package uses OpenTelemetry's API only: which spans are kept and where they
// go is up to the TracerProvider it is given. It opens no file and dials nothing
// but what its caller tells it to.
package middleware

import "github.com/shimtrace/shimtrace/internal/names"

// ScopeName is the instrumentation scope of the spans of calls.
const ScopeName = names.CallScope
