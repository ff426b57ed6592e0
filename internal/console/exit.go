package console

import "fmt"

// Exit codes. Failure is any error without a code of its own.
const (
	OK = iota
	Failure
	Usage
	Nothing
)

// exitError is an error with an exit code other than Failure.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode returns the code, like that of [os/exec.ExitError].
func (e *exitError) ExitCode() int { return e.code }

// UsageError returns an error about the command line.
func UsageError(format string, args ...any) error {
	return &exitError{Usage, fmt.Errorf(format, args...)}
}

// NothingFound returns an error for a query without result.
func NothingFound(format string, args ...any) error {
	return &exitError{Nothing, fmt.Errorf(format, args...)}
}
