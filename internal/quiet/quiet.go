// Package quiet keeps libraries from writing to standard error while they are
// initialized, and afterwards through Go's standard logger. What a shim's start
// prints is its answer: containerd reads standard output and error as one, and one
// line more costs the container (containerd's client.Command and CombinedOutput in
// core/runtime/v2/binary.go). OpenTelemetry's auto SDK, for one, warns of variables
// like OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT before main begins.
//
// Go initializes packages in the order of their paths as far as their imports allow
// (The Go Programming Language Specification, "Program initialization"): this one
// needs nothing but log, and so comes before all of go.opentelemetry.io.
//
// It is imported for its effect, by the shim.
package quiet

import (
	"io"
	"log"
)

func init() { log.SetOutput(io.Discard) }
