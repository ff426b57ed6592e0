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
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export/journal"
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
	script := fmt.Sprintf("#!/bin/sh\necho $$ $%s \"$*\" >> %s\n%s\n", ShipLockEnv, f.notes, commands)
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

func TestOneShipperIsStarted(t *testing.T) {
	f := newFakeShipper(t, "exec sleep 1000")
	var l log
	var wg sync.WaitGroup
	shippers := make([]*Keeper, 8)
	for i := range shippers {
		shippers[i] = NewKeeper(f.cfg, l.printf)
		wg.Go(func() {
			for range 50 {
				shippers[i].Ensure()
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, s := range shippers {
			s.Close(0)
		}
	}()
	eventually(t, "a shipper starts", func() bool { return len(f.started(t)) > 0 })
	pids := f.started(t)
	if len(pids) != 1 || len(l.all()) != 0 {
		t.Fatalf("started %v, log %q", pids, l.all())
	}
	text, _ := os.ReadFile(f.notes)
	if want := fmt.Sprintf("%d 3 ship --journal %s\n", pids[0], f.cfg.Journal.Dir); string(text) != want {
		t.Errorf("started as %q, want %q", text, want)
	}
	if sid, err := unix.Getsid(pids[0]); err != nil || sid != pids[0] {
		t.Errorf("session %d, %v", sid, err)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pids[0], fd)); to != os.DevNull {
			t.Errorf("descriptor %d is %s, %v", fd, to, err)
		}
	}
	// The shell has one more open, until it executes.
	eventually(t, "it has only the standard files and the lock open", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
		return err == nil && len(entries) == 4
	})
	if _, err := journal.LockShipping(f.cfg.Journal.Dir); !errors.Is(err, journal.ErrShipped) {
		t.Errorf("the shipper does not hold the lock: %v", err)
	}

	// It dies; the next look starts another.
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another shipper starts", func() bool {
		shippers[0].Ensure()
		return len(f.started(t)) == 2
	})
}

func TestShipperThatFailsIsNotHurried(t *testing.T) {
	f := newFakeShipper(t, "exit 3")
	var l log
	s := NewKeeper(f.cfg, l.printf)
	defer s.Close(0)
	s.Ensure()
	eventually(t, "the failure is logged", func() bool { return len(l.all()) == 1 })
	other := NewKeeper(f.cfg, l.printf) // as of another pod
	defer other.Close(0)
	for range 200 {
		s.Ensure()
		other.Ensure()
	}
	if n := len(f.started(t)); n != 1 {
		t.Errorf("started %d times at once", n)
	}
	// It is tried again without another append.
	eventually(t, "the second start", func() bool { return len(f.started(t)) >= 2 })
	for _, line := range l.all() {
		if !strings.Contains(line, "exit status 3") {
			t.Errorf("log %q", line)
		}
	}
	if n := len(l.all()); n > 2 {
		t.Errorf("%d lines for one cause", n)
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

func TestShipperIsFoundOnPath(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, shipperName)
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	if got, err := findShipper(""); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := findShipper(filepath.Join(dir, "other")); err == nil || !strings.Contains(err.Error(), "export.shipper") {
		t.Errorf("a configured program that is not there: %v", err)
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

func BenchmarkEnsure(b *testing.B) {
	cfg := config.Default()
	cfg.Export.Endpoint, cfg.Journal.Dir = "http://127.0.0.1:1", b.TempDir()
	lock, err := journal.LockShipping(cfg.Journal.Dir)
	if err != nil {
		b.Fatal(err)
	}
	defer lock.Close()
	s := NewKeeper(cfg, b.Logf)
	b.ReportAllocs()
	for b.Loop() {
		s.Ensure()
	}
}

// TestTheLastOneReplacesADeadShipper: a shipper that died just before the last
// process leaves has nobody else to start it again.
func TestTheLastOneReplacesADeadShipper(t *testing.T) {
	for linger, starts := range map[time.Duration]int{0: 1, Linger: 2} {
		f := newFakeShipper(t, "exit 0")
		first := NewKeeper(f.cfg, t.Logf)
		first.Ensure()
		eventually(t, "the first one's start", func() bool { return len(f.started(t)) == 1 })
		first.Close(0)
		last := NewKeeper(f.cfg, t.Logf)
		eventually(t, "the first one's end", func() bool {
			lock, err := journal.LockShipping(f.cfg.Journal.Dir)
			if err != nil {
				return false
			}
			lock.Close()
			return true
		})
		last.Ensure()
		last.Close(linger)
		if linger > 0 {
			eventually(t, "another start", func() bool { return len(f.started(t)) == starts })
		} else if n := len(f.started(t)); n != starts {
			t.Errorf("%d starts without time to wait", n)
		}
	}
}
