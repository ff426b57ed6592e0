package testkit

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A copy of a process is not a second one of its kind, and is one once its parent has ended.
func TestForked(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	// The shell in parentheses is a copy: it executes nothing.
	cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf("(: >%s; read line; :); :", ready))
	stdin, err := cmd.StdinPipe()
	Check(t, err)
	Check(t, cmd.Start())
	Until(t, "the copy", func() bool { _, err := os.Stat(ready); return err == nil })
	list := func() []int { return Processes(With(ready)) }
	if got := list(); len(got) != 1 || got[0] != cmd.Process.Pid {
		t.Errorf("processes %v, want %d", got, cmd.Process.Pid)
	}
	Check(t, cmd.Process.Kill())
	_, _ = cmd.Process.Wait()
	if got := list(); len(got) != 1 || got[0] == cmd.Process.Pid {
		t.Errorf("processes %v after the end of %d, want the copy", got, cmd.Process.Pid)
	}
	_, err = io.WriteString(stdin, "end\n")
	Check(t, err)
	Until(t, "the copy to end", func() bool { return len(list()) == 0 })
}
