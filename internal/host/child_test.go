package host

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestChild holds children's ends to what package os/exec has of them.
func TestChild(t *testing.T) {
	for _, script := range []string{"exit 0", "exit 7", "kill -TERM $$", "ulimit -c 0; kill -QUIT $$"} {
		argv := []string{"sh", "-c", script}
		c, err := StartChild("/bin/sh", argv, &syscall.ProcAttr{Env: os.Environ()})
		if err != nil {
			t.Fatal(err)
		}
		got, want := c.Wait(), (&exec.Cmd{Path: "/bin/sh", Args: argv}).Run()
		if got == nil && want == nil {
			continue
		}
		var exit ExitError
		var of *exec.ExitError
		if !errors.As(got, &exit) || !errors.As(want, &of) || got.Error() != want.Error() || exit.ExitStatus() != of.ExitCode() {
			t.Errorf("%q: %v, want %v", script, got, want)
		}
	}
	_, err := StartChild("/none", []string{"none"}, &syscall.ProcAttr{})
	if want := exec.Command("/none").Run(); err == nil || err.Error() != want.Error() || !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a program that is not there: %v, want %v", err, want)
	}
	c, err := StartChild("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("killed: %v", err)
	}
	if err := c.Wait(); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("waited for twice: %v", err)
	}
	// The kernel would not know it either, unless its pid is another process's by now.
	if err := c.Kill(); !errors.Is(err, syscall.ESRCH) || c.pid != 0 {
		t.Errorf("killed after its end: %v, by pid %d", err, c.pid)
	}
}
