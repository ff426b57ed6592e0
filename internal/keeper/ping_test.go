package keeper

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// beKept is the life of what is kept: it answers pings. With the word "deaf" beside the
// lock it leaves them without an answer.
func beKept(path string) {
	lock, _ := Inherited(path)
	if lock == nil {
		os.Exit(1)
	}
	if _, err := os.Lstat(path + ".deaf"); err == nil {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + pingName, Net: "unix"})
		if err != nil {
			panic(err)
		}
		defer l.Close()
	} else if _, err := Answer(path); err != nil {
		panic(err)
	}
	time.Sleep(time.Hour)
}

// newAnswering is a tool that answers pings.
func newAnswering(t *testing.T) *fakeTool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := newFakeTool(t, "exec "+self)
	t.Setenv(answerEnv, f.opts.Lock)
	f.opts.Every = 20 * time.Millisecond
	return f
}

// watch has a Keeper watch until the test's end.
func watch(t *testing.T, k *Keeper) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { k.Watch(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		k.Close(0)
	})
}

func (f *fakeTool) answers(t *testing.T) {
	t.Helper()
	eventually(t, "it answers", func() bool {
		conn, err := net.Dial("unix", f.opts.Lock+pingName)
		if err != nil {
			return false
		}
		defer conn.Close()
		n, _ := conn.Read(make([]byte, 1))
		return n == 1
	})
}

func TestStoppedOneIsReplaced(t *testing.T) {
	f := newAnswering(t)
	for range 3 { // of many pods
		watch(t, New(f.opts))
	}
	f.answers(t)
	// Not when it does its work, however often it is looked at.
	time.Sleep(10 * f.opts.Every)
	first := f.Started(t)
	if len(first) != 1 || len(f.log.All()) != 0 {
		t.Fatalf("started %v, log %q", first, f.log.All())
	}
	if err := unix.Kill(first[0], unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	eventually(t, "another one is there", func() bool { return len(f.Started(t)) == 2 })
	t.Logf("after %v", time.Since(stopped))
	f.answers(t)
	if log := strings.Join(f.log.All(), "\n"); !strings.Contains(log, fmt.Sprintf("the doer, process %d, is stopped: it is replaced", first[0])) {
		t.Errorf("log %q", log)
	}
	if n := len(f.Started(t)); n != 2 {
		t.Errorf("started %d times", n)
	}
}

// TestHangingOneIsReplaced: one that runs and does not answer, which a busy machine may
// be the cause of, has longer.
func TestHangingOneIsReplaced(t *testing.T) {
	f := newAnswering(t)
	deaf := f.opts.Lock + ".deaf"
	if err := os.WriteFile(deaf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	patient := New(f.opts)
	watch(t, patient)
	eventually(t, "it has not answered", func() bool {
		patient.mu.Lock()
		defer patient.mu.Unlock()
		return !patient.silent.IsZero()
	})
	if err := os.Remove(deaf); err != nil {
		t.Fatal(err)
	}
	first := f.Started(t)
	if len(first) != 1 {
		t.Fatalf("started %v", first)
	}
	other := New(f.opts)
	other.patience = time.Millisecond
	watch(t, other)
	eventually(t, "another one is there", func() bool { return len(f.Started(t)) == 2 })
	f.answers(t)
	if log := strings.Join(f.log.All(), "\n"); !strings.Contains(log, fmt.Sprintf("the doer, process %d, hangs: it is replaced", first[0])) {
		t.Errorf("log %q", log)
	}
}

// TestFrozenOneIsReplaced: one that others wait for, and that sleeps though it is pinged,
// has no longer than for a second ping; one that would run if it could has.
func TestFrozenOneIsReplaced(t *testing.T) {
	f := newAnswering(t)
	deaf := f.opts.Lock + ".deaf"
	if err := os.WriteFile(deaf, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.opts.Awaited = true
	k := New(f.opts)
	k.Ensure()
	eventually(t, "it is there", func() bool {
		_, err := os.Lstat(f.opts.Lock + pingName)
		return err == nil && len(f.Started(t)) == 1
	})
	if err := os.Remove(deaf); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	watch(t, k)
	eventually(t, "another one is there", func() bool { return len(f.Started(t)) == 2 })
	t.Logf("after %v", time.Since(began))
	f.answers(t)
	if (&silence{pid: os.Getpid()}).asleep() {
		t.Error("who asks runs")
	}
}

// TestOneWithoutASocketStays: it is of a version that knew of none, or it is starting.
func TestOneWithoutASocketStays(t *testing.T) {
	f := newFakeTool(t, "exec sleep 1000")
	f.opts.Every = time.Millisecond
	k := New(f.opts)
	k.patience = 0
	watch(t, k)
	eventually(t, "it starts", func() bool { return len(f.Started(t)) == 1 })
	pid := f.Started(t)[0]
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		k.Ensure()
		time.Sleep(2 * time.Millisecond)
	}
	if n := len(f.Started(t)); n != 1 || len(f.log.All()) != 0 {
		t.Errorf("started %d times, log %q", n, f.log.All())
	}
}

// TestAnswerWhereNamesAreLong: a socket's address has room for 107 bytes.
func TestAnswerWhereNamesAreLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 200))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "lock")
	// As one that was killed has left it.
	if err := os.WriteFile(path+pingName, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Answer(path)
	if err != nil {
		t.Fatal(err)
	}
	if s := ping(path); s != nil {
		t.Error("no answer")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestFullDisk: what fails because the disk is full is not started again and again, by
// however many Keepers, and the log says why it fails.
func TestFullDisk(t *testing.T) {
	dir := disktest.Full(t, "16k")
	f := newFakeTool(t, "echo no space for it >&2; exit 3")
	f.opts.Lock = filepath.Join(dir, "lock")
	fill, err := os.Create(filepath.Join(dir, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for err == nil {
		_, err = fill.Write(make([]byte, 1<<10))
	}
	const pods = 16
	var keepers [pods]*Keeper
	for i := range keepers {
		keepers[i] = New(f.opts)
		defer keepers[i].Close(0)
	}
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, k := range keepers {
			k.Ensure()
		}
	}
	// At 0, 2 and not before 6 seconds.
	n, log := len(f.Started(t)), f.log.All()
	if n < 1 || n > 2 || len(log) < 1 || len(log) > n {
		t.Errorf("started %d times in 4 s, log %q", n, log)
	}
	if !strings.Contains(log[0], "exit status 3: no space for it") {
		t.Errorf("log %q", log[0])
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Disks",
		Fault: "the disk is full, and the shipper, or the endpoint, fails for that each time it is started, while 16 relays want it",
		Pod:   "nothing",
		Lost:  "nothing by that: it is started after 2 s, 4 s, and so on to once a minute, and the log has the cause once",
	})
}

// TestMarkWithoutADisk: a Keeper that cannot leave a mark knows its own.
func TestMarkWithoutADisk(t *testing.T) {
	f := newFakeTool(t, "exit 3")
	k := New(f.opts)
	defer k.Close(0)
	k.Ensure()
	eventually(t, "the failure is logged", func() bool { return len(f.log.All()) == 1 })
	// As if that had failed.
	if err := os.Chtimes(f.opts.Lock, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		k.Ensure()
	}
	if n := len(f.Started(t)); n != 1 {
		t.Errorf("started %d times at once", n)
	}
}
