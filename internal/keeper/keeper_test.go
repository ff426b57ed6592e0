package keeper

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper/keepertest"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// answerEnv makes this program the kept process; its value is the lock.
const answerEnv = "KEEPER_TEST_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(answerEnv); path != "" {
		beKept(path)
	}
	goleak.VerifyTestMain(m)
}

var eventually = testkit.Until

// fakeTool is a program with the options that have it kept.
type fakeTool struct {
	*keepertest.Tool
	opts Options
	log  keepertest.Log
}

func newFakeTool(t *testing.T, commands string) *fakeTool {
	t.Helper()
	f := &fakeTool{Tool: keepertest.NewTool(t, KeptEnv, commands)}
	f.opts = Options{
		Lock:    filepath.Join(filepath.Dir(f.Path), "lock"),
		Program: func() (string, error) { return f.Path, nil },
		Args:    []string{"do", "it"},
		Without: "it is not done", Name: "doer",
		Logf: f.log.Printf,
	}
	return f
}

func TestOneIsStarted(t *testing.T) {
	f := newFakeTool(t, "exec sleep 1000")
	var wg sync.WaitGroup
	keepers := make([]*Keeper, 8)
	for i := range keepers {
		keepers[i] = New(f.opts)
		wg.Go(func() {
			for range 50 {
				keepers[i].Ensure()
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, k := range keepers {
			k.Close(0)
		}
	}()
	eventually(t, "it starts", func() bool { return len(f.Started(t)) > 0 })
	pids := f.Started(t)
	if len(pids) != 1 || len(f.log.All()) != 0 {
		t.Fatalf("started %v, log %q", pids, f.log.All())
	}
	text, _ := os.ReadFile(f.Notes)
	if want := fmt.Sprintf("%d 3 do it\n", pids[0]); string(text) != want {
		t.Errorf("started as %q, want %q", text, want)
	}
	if sid, err := unix.Getsid(pids[0]); err != nil || sid != pids[0] {
		t.Errorf("session %d, %v", sid, err)
	}
	// The shell has one more open, until it executes, and another standard output while it
	// writes its note.
	eventually(t, "it has only the standard files and the lock open", func() bool {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pids[0]))
		return err == nil && len(entries) == 4
	})
	for fd, want := range []string{os.DevNull, os.DevNull, "/memfd:stderr (deleted)"} {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pids[0], fd)); to != want {
			t.Errorf("descriptor %d is %s, %v", fd, to, err)
		}
	}
	if _, err := lock(f.opts.Lock); !errors.Is(err, host.ErrLocked) {
		t.Errorf("it does not hold the lock: %v", err)
	}

	// It dies; the next look starts another.
	if err := unix.Kill(pids[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another one starts", func() bool {
		keepers[0].Ensure()
		return len(f.Started(t)) == 2
	})
}

// noting is a command that writes the moment into a file.
func noting(t *testing.T) (command string, moments func() []time.Time) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "moments")
	return "date +%s%N >> " + path, func() (all []time.Time) {
		t.Helper()
		text, err := os.ReadFile(path)
		testkit.Check(t, err)
		for field := range strings.FieldsSeq(string(text)) {
			n, err := strconv.ParseInt(field, 10, 64)
			testkit.Check(t, err)
			all = append(all, time.Unix(0, n))
		}
		return all
	}
}

func TestFailingOneIsNotHurried(t *testing.T) {
	note, moments := noting(t)
	f := newFakeTool(t, note+"; exit 3")
	k := New(f.opts)
	defer k.Close(0)
	k.Ensure()
	eventually(t, "the failure is logged", func() bool { return len(f.log.All()) == 1 })
	other := New(f.opts) // as of another pod
	defer other.Close(0)
	for range 200 {
		k.Ensure()
		other.Ensure()
	}
	// It is tried again without being asked for, and not at once. The test may have had no
	// processor until then, so the program tells when it was started.
	eventually(t, "the second start", func() bool { return len(moments()) >= 2 })
	if all := moments(); all[1].Sub(all[0]) < 2*minRestart {
		t.Errorf("started at %v", all)
	}
	for _, line := range f.log.All() {
		if !strings.Contains(line, "it is not done: the doer ") || !strings.Contains(line, "exit status 3") {
			t.Errorf("log %q", line)
		}
	}
	if n := len(f.log.All()); n > 2 {
		t.Errorf("%d lines for one cause", n)
	}
}

// TestTheLastOneReplacesADeadOne: if the process died just before the last Keeper leaves,
// nobody else can start it again.
func TestTheLastOneReplacesADeadOne(t *testing.T) {
	for linger, starts := range map[time.Duration]int{0: 1, Linger: 2} {
		f := newFakeTool(t, "exit 0")
		first := New(f.opts)
		first.Ensure()
		eventually(t, "the first one's start", func() bool { return len(f.Started(t)) == 1 })
		first.Close(0)
		last := New(f.opts)
		eventually(t, "the first one's end", func() bool {
			lock, err := lock(f.opts.Lock)
			if err != nil {
				return false
			}
			lock.Close()
			return true
		})
		if linger == 0 { // the pause lasts, however long this test has had no processor
			mark{time.Now(), time.Now().Add(maxRestart)}.write(f.opts.Lock)
		}
		last.Ensure()
		last.Close(linger)
		if linger > 0 {
			eventually(t, "another start", func() bool { return len(f.Started(t)) == starts })
		} else if n := len(f.Started(t)); n != starts {
			t.Errorf("%d starts without time to wait", n)
		}
	}
}

var errTaken = errors.New("somebody else has it")

// socketOnce returns an Options.Files: a socket at path, once it is free.
func socketOnce(free *atomic.Bool, path string) func() ([]*os.File, error) {
	return func() ([]*os.File, error) {
		if !free.Load() {
			return nil, errTaken
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, err
		}
		l.SetUnlinkOnClose(false)
		defer l.Close()
		file, err := l.File()
		return []*os.File{file}, err
	}
}

// TestFilesAreLeft: the process gets the files after the lock, no other process has them,
// and without them it is not started.
func TestFilesAreLeft(t *testing.T) {
	f := newFakeTool(t, "exec sleep 1000")
	path := filepath.Join(t.TempDir(), "socket")
	var free atomic.Bool
	f.opts.Files = socketOnce(&free, path)
	f.opts.StartTime = time.Hour // the program answers nothing
	k := New(f.opts)
	k.patience = time.Hour
	defer k.Close(0)
	k.Ensure()
	if lines := f.log.All(); len(lines) != 1 || !strings.Contains(lines[0], errTaken.Error()) || len(f.Started(t)) != 0 {
		t.Fatalf("log %q, started %v", lines, f.Started(t))
	}
	free.Store(true)
	eventually(t, "it is started", func() bool { return len(f.Started(t)) == 1 })
	pid := f.Started(t)[0]
	if text, _ := os.ReadFile(f.Notes); string(text) != fmt.Sprintf("%d 3 4 do it\n", pid) {
		t.Errorf("started as %q", text)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the process does not have the socket: %v", err)
	} else {
		conn.Close()
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nobody has the socket", func() bool {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, unix.ECONNREFUSED)
	})
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := Find("", "a.b"); err == nil || !strings.Contains(err.Error(), "neither beside the shim nor on PATH: install it, or name it in a.b") {
		t.Errorf("there is none: %v", err)
	}
	want := filepath.Join(dir, tool)
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := Find("", "a.b"); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Find(filepath.Join(dir, "other"), "a.b"); err == nil || !strings.Contains(err.Error(), "a.b") {
		t.Errorf("a configured program that is not there: %v", err)
	}
}

func BenchmarkEnsure(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lock")
	lock, err := lock(path)
	if err != nil {
		b.Fatal(err)
	}
	defer lock.Close()
	k := New(Options{Lock: path, Logf: b.Logf})
	b.ReportAllocs()
	for b.Loop() {
		k.Ensure()
	}
}
