package vm

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// A child is a process that ends at the latest with this one.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and its output is read
}

// startChild starts cmd. The kernel kills the child when the thread that started
// it ends, so a goroutine keeps that thread until then.
func startChild(cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", filepath.Base(cmd.Path), err)
	}
	return c, nil
}

// kill ends the child, if it still runs, and waits for its end.
func (c *child) kill() {
	c.cmd.Process.Kill() // fails only if it has ended
	<-c.done
}
