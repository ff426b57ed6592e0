package host

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// Child is a process that this one has started, and has not waited for yet.
type Child struct{ pid int }

// StartChild executes a program (syscall.ForkExec). Package os, and os/exec with it, first starts
// another process to see what the kernel's pidfds can do, which takes longer than all else that
// a command of the shim does before it has a child. A child needs no pidfd: nobody else waits
// for it, so its pid is its own until Wait returns.
func StartChild(program string, argv []string, attr *syscall.ProcAttr) (Child, error) {
	pid, err := syscall.ForkExec(program, argv, attr)
	if err != nil {
		return Child{}, &os.PathError{Op: "fork/exec", Path: program, Err: err}
	}
	return Child{pid}, nil
}

// Wait waits for the child's end, once. The error is an ExitError unless it ended with status 0.
func (c Child) Wait() error {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(c.pid, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", c.pid, err)
		case status != 0:
			return ExitError{status}
		default:
			return nil
		}
	}
}

// Kill ends a child that has not been waited for.
func (c Child) Kill() error { return syscall.Kill(c.pid, syscall.SIGKILL) }

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
