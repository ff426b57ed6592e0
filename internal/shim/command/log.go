package command

import (
	"io"
	"log/slog"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/loglimit"
)

// Level returns the level of a log, as the configuration has it, in a variable by which it
// can be changed.
func Level(text string) *slog.LevelVar {
	l := new(slog.LevelVar)
	_ = l.UnmarshalText([]byte(text)) // it was checked
	return l
}

// OpenLog returns a logger to the bundle's log pipe, from which containerd copies
// to its own log. Without a reader there is no log: a shim's standard error is
// part of its answer and not to be written to. What a guest or a stranger can have us
// say again and again is said once a minute.
func OpenLog(bundle string, level slog.Leveler, attrs ...any) *slog.Logger {
	to := io.Discard
	if fd, err := openPipe(bundle); err == nil {
		to = pipe(fd)
	}
	h := slog.NewTextHandler(to, &slog.HandlerOptions{Level: level})
	return slog.New(loglimit.Handler(h)).With("component", "shimtrace").With(attrs...)
}

func openPipe(bundle string) (int, error) {
	return unix.Open(filepath.Join(bundle, "log"), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// RedirectStderr makes the bundle's log pipe the process's standard error, which
// is where the Go runtime says why it ends.
func RedirectStderr(bundle string) {
	if fd, err := openPipe(bundle); err == nil {
		_ = unix.Dup3(fd, 2, 0)
		_ = unix.Close(fd)
	}
}

// pipe writes to a pipe as long as that does not block: a line is lost rather
// than a container held up by a log that nobody reads.
type pipe int

// Write implements io.Writer.
func (p pipe) Write(b []byte) (int, error) {
	n, err := unix.Write(int(p), b)
	if err != nil {
		return 0, err
	}
	return n, nil
}
