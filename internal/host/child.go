package host

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Child is a process that this one has started. It is not safe for concurrent use.
type Child struct {
	pid int // 0 once it has been waited for: it may be another process's by then
}

// StartChild executes a program (syscall.ForkExec). Package os, and os/exec with it, first starts
// another process to see what the kernel's pidfds can do, for which containerd would wait. A
// child needs no pidfd: nobody else waits for it, so its pid is its own until Wait returns.
func StartChild(program string, argv []string, attr *syscall.ProcAttr) (*Child, error) {
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		return nil, &os.PathError{Op: "fork/exec", Path: program, Err: err}
	}
	return &Child{pid}, nil
}

// Wait waits for the child's end. The error is an ExitError unless it ended with status 0, and
// syscall.ECHILD if it has been waited for.
func (c *Child) Wait() error {
	if c.pid == 0 {
		return syscall.ECHILD
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			err = fmt.Errorf("wait for process %d: %w", c.pid, err)
		} else if status != 0 {
			err = ExitError{status}
		}
		c.pid = 0
		return err
	}
}

// Kill ends the child. The error is syscall.ESRCH if it has been waited for.
func (c *Child) Kill() error {
	if c.pid == 0 {
		return syscall.ESRCH
	}
	return syscall.Kill(c.pid, syscall.SIGKILL)
}

// ExitError is how a child ended: by its own exit status, or a signal.
type ExitError struct{ syscall.WaitStatus }

// Error says it as package os does.
func (e ExitError) Error() string {
	if e.Exited() {
		return fmt.Sprint("exit status ", e.ExitStatus())
	}
	text := "signal: " + e.Signal().String()
	if e.CoreDump() {
		text += " (core dumped)"
	}
	return text
}
