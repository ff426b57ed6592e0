package shim

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: a process in every pod watches no files: a host has few watches.
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
		if strings.HasPrefix(dep, "github.com/fsnotify/") {
			t.Errorf("the shim depends on %s", dep)
		}
	}
}
