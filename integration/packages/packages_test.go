// Package packages installs what "make release" makes.
package packages

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	if released {
		if dir, err := release(); err == nil {
			os.RemoveAll(dir)
		}
	}
	os.Exit(code)
}

// all says that everything of a release is looked at, which takes the compiler a minute
// more: "make test-release".
var all = os.Getenv("SHIMTRACE_RELEASE") == "all"

var released bool

// release builds a release once, for this machine's architecture or for all of them, and
// returns its directory.
var release = sync.OnceValues(func() (string, error) {
	released = true
	dir, err := tempdir.Make()
	if err != nil {
		return "", err
	}
	archs := runtime.GOARCH
	if all {
		archs = "amd64,arm64"
	}
	out, err := exec.Command("go", "-C", filepath.Join(traced.Root(), "release"), "run", ".", "-out", dir, "-arch", archs).CombinedOutput()
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("build a release: %w: %s", err, out)
	}
	return dir, nil
})

// built returns the one file of the release whose name fits.
func built(t *testing.T, pattern string) string {
	t.Helper()
	dir, err := release()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}
