package export

import (
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNoNetworkCode guards the size of the shim, which runs once per pod.
// OpenTelemetry's propagation package imports net/http for the type of its headers; the
// linker drops the rest unless another package uses it.
func TestNoNetworkCode(t *testing.T) {
	const format = `{{$p := .ImportPath}}{{if not .Standard}}{{range .Imports}}{{$p}} {{.}}{{"\n"}}{{end}}{{end}}`
	out, err := exec.Command("go", "list", "-deps", "-f", format, ".", "./journal").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		by, dep, _ := strings.Cut(strings.TrimSpace(line), " ")
		if by == "go.opentelemetry.io/otel/propagation" {
			continue
		}
		if dep == "net/http" || dep == "crypto/tls" || strings.HasPrefix(dep, "google.golang.org/grpc") {
			t.Errorf("%s imports %s", by, dep)
		}
	}
}
