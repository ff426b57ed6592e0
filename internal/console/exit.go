package console

import "fmt"

// Exit codes. Anything that is none of the others is Failure.
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

// ExitCode returns the code, as that of an [os/exec.ExitError] does.
func (e *exitError) ExitCode() int { return e.code }

// UsageError says what is wrong with a command line.
func UsageError(format string, args ...any) error {
	return &exitError{Usage, fmt.Errorf(format, args...)}
}

// NothingFound says that there is nothing of what was asked for.
func NothingFound(format string, args ...any) error {
	return &exitError{Nothing, fmt.Errorf(format, args...)}
}
