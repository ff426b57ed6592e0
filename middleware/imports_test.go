package middleware_test

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/deptest"
)

// TestImports: which spans are kept is for the program to say, so that neither
// OpenTelemetry's SDK nor an exporter is brought in.
func TestImports(t *testing.T) {
	deptest.Without(t, map[string]string{
		"go.opentelemetry.io/otel/sdk":                      "the program brings the TracerProvider",
		"go.opentelemetry.io/otel/exporters":                "the program says where spans go",
		"github.com/containerd/containerd":                  "the relay knows ttrpc and not what is said",
		"github.com/shimtrace/shimtrace/internal/shim":      "it is a library for others",
		"github.com/shimtrace/shimtrace/internal/export":    "it is a library for others",
		"github.com/shimtrace/shimtrace/internal/forwarder": "it is a library for others",
		"github.com/shimtrace/shimtrace/internal/kata":      "what is known of methods is the program's to say",
	})
}
