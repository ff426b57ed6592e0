package testkit

import (
	"os/exec"
	"testing"
)

// TestStop: a process that computes goes on until Stop has returned.
func TestStop(t *testing.T) {
	command := exec.Command("sh", "-c", "while :; do :; done")
	Check(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	pid := command.Process.Pid
	if !goesOn(pid) {
		t.Error("it does nothing before it is stopped")
	}
	Stop(t, pid)
	if goesOn(pid) {
		t.Error("it goes on")
	}
}
