// Package keepertest has a program for the tests of keepers to start, and a log.
package keepertest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Tool is a program that notes each start and then runs shell commands. Its processes are
// killed when the test ends.
type Tool struct {
	// Path is the program's path. The file Notes has a line for each start: pid, value of
	// env, arguments.
	Path, Notes string
}

// NewTool writes the program. It notes the environment variable env.
func NewTool(t *testing.T, env, commands string) *Tool {
	t.Helper()
	dir := t.TempDir()
	f := &Tool{Path: filepath.Join(dir, "program"), Notes: filepath.Join(dir, "notes")}
	script := fmt.Sprintf("#!/bin/sh\necho $$ $%s \"$*\" >> %s\n%s\n", env, f.Notes, commands)
	if err := os.WriteFile(f.Path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range f.Started(t) {
			end(pid)
		}
	})
	return f
}

// end kills a process and waits until it has ended: a Keeper's goroutine waits for that, too,
// and is no leak of the test.
func end(pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Minute.Milliseconds()))
}

// Started returns the pids of the processes started so far.
func (f *Tool) Started(t *testing.T) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(f.Notes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		first, _, _ := strings.Cut(line, " ")
		pid, err := strconv.Atoi(first)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// Log collects what a keeper logs.
type Log struct {
	mu    sync.Mutex
	lines []string
}

// Printf is a keeper's Logf.
func (l *Log) Printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// All returns the lines so far.
func (l *Log) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}
