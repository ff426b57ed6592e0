package export

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/keeper"
)

// fakeShipper is a program that notes its start and then runs the shell commands.
type fakeShipper struct {
	cfg   config.Config
	notes string
}

func newFakeShipper(t *testing.T, commands string) *fakeShipper {
	t.Helper()
	dir := t.TempDir()
	f := &fakeShipper{cfg: config.Default(), notes: filepath.Join(dir, "notes")}
	f.cfg.Export.Endpoint = "http://127.0.0.1:1"
	f.cfg.Export.Shipper = filepath.Join(dir, "shipper")
	f.cfg.Journal.Dir = t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho $$ $%s \"$*\" >> %s\n%s\n", keeper.KeptEnv, f.notes, commands)
	if err := os.WriteFile(f.cfg.Export.Shipper, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, pid := range f.started(t) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	})
	return f
}

// started returns the processes that have been started so far.
func (f *fakeShipper) started(t *testing.T) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(f.notes)
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

// log collects what a Keeper logs.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) printf(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *log) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.lines...)
}

func TestShipperIsStarted(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	f.cfg.Runtime = "kata"
	var l log
	k := NewKeeper(f.cfg, l.printf)
	defer k.Close(0)
	k.Ensure()
	eventually(t, "a shipper starts", func() bool { return len(f.started(t)) > 0 })
	text, _ := os.ReadFile(f.notes)
	if want := fmt.Sprintf("%d 3 ship --journal %s --runtime kata\n", f.started(t)[0], f.cfg.Journal.Dir); string(text) != want || len(l.all()) != 0 {
		t.Errorf("started as %q, want %q; log %q", text, want, l.all())
	}
	if _, err := journal.LockShipping(f.cfg.Journal.Dir); !errors.Is(err, journal.ErrShipped) {
		t.Errorf("the shipper does not hold the lock: %v", err)
	}
}

func TestShipperIsMissing(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	cfg := config.Default()
	cfg.Journal.Dir = t.TempDir()
	var l log
	s := NewKeeper(cfg, l.printf)
	s.Ensure()
	if len(l.all()) != 0 {
		t.Errorf("without an endpoint: %q", l.all())
	}
	if _, err := os.Stat(filepath.Join(cfg.Journal.Dir, journal.ShipLockName)); err == nil {
		t.Error("without an endpoint the lock is looked at")
	}
	s.Close(0)

	cfg.Export.Endpoint = "http://127.0.0.1:1"
	s = NewKeeper(cfg, l.printf)
	defer s.Close(0)
	for range 10 {
		s.Ensure()
	}
	if lines := l.all(); len(lines) != 1 || !strings.Contains(lines[0], "export.shipper") {
		t.Errorf("log %q", lines)
	}
}

func TestClientEnsuresAfterUpload(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	j, err := journal.Open(f.cfg.Journal.Dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	s := NewKeeper(f.cfg, t.Logf)
	defer s.Close(0)
	if err := s.Client(j).UploadTraces(t.Context(), []*tracepb.ResourceSpans{{}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a shipper starts", func() bool { return len(f.started(t)) == 1 })
}
