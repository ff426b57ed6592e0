package explain_test

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// TestSeededHost: others use the host's CPUs, and the kernel says so to us as well.
func TestSeededHost(t *testing.T) {
	seeded.Quiet(t)
	s := start(t, traced.Options{})
	hogs := 4 * runtime.NumCPU()
	for range hogs {
		hog := exec.Command(image.BusyboxPath, "sh", "-c", "while :; do :; done")
		hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		check(t, hog.Start())
		t.Cleanup(func() {
			_ = hog.Process.Kill()
			_ = hog.Wait()
		})
	}
	watched := seeded.Watch(t)
	e := s.run("crowded", bundle{root: t.TempDir()}, nil)
	waited := watched()
	seeded.Named(t, seeded.Cause{ID: seeded.Pressed, How: fmt.Sprintf("%d programs for each CPU that do nothing but compute", hogs/runtime.NumCPU()), Parts: seeded.Runc, Also: also()}, e)
	for _, c := range e.Causes {
		if c.ID == seeded.Pressed && c.Cost > waited {
			t.Errorf("it says %s, the kernel %s", c.Cost, waited)
		}
	}
}
