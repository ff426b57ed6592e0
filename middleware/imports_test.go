package middleware_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: which spans are kept is for the program to say, so that neither
// OpenTelemetry's SDK nor an exporter is brought in.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list -deps: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 10 {
		t.Fatalf("go list -deps gave %q", deps)
	}
	for _, dep := range deps {
		for _, bad := range []string{
			"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "github.com/containerd/containerd",
			"github.com/shimtrace/shimtrace/shim", "github.com/shimtrace/shimtrace/export", "github.com/shimtrace/shimtrace/forwarder",
		} {
			if dep == bad || strings.HasPrefix(dep, bad+"/") {
				t.Errorf("middleware depends on %s", dep)
			}
		}
	}
}
