package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// beKept is the kept process: it answers pings, unless there is a file "deaf" beside the
// lock.
func beKept(path string) {
	lock, _ := Inherited(path)
	if lock == nil {
		os.Exit(1)
	}
	take := func(files []*os.File) {
		for _, f := range files {
			l, err := net.FileListener(f)
			if err != nil {
				panic(err)
			}
			f.Close()
			leftBehind.Store(l)
		}
	}
	state := func() string {
		if l, ok := leftBehind.Load().(net.Listener); ok {
			return l.Addr().String()
		}
		return "nothing"
	}
	if _, err := os.Lstat(path + ".deaf"); err == nil {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + pingName, Net: "unix"})
		if err != nil {
			panic(err)
		}
		defer l.Close()
	} else if _, err := Answer(path, state, take); err != nil {
		panic(err)
	}
	if _, err := os.Lstat(path + ".busy"); err == nil {
		for n := 0; ; n++ { // neither asleep nor waiting for a processor
			if n%1000 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	time.Sleep(time.Hour)
}

// leftBehind is the listener that was left to this process while it ran.
var leftBehind atomic.Value

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
	// On a busy machine its end may take as long as if it were stuck.
	if log := strings.Join(f.log.All(), "\n"); !strings.Contains(log, fmt.Sprintf("the doer, process %d, is stopped", first[0])) {
		t.Errorf("log %q", log)
	}
	if n := len(f.Started(t)); n != 2 {
		t.Errorf("started %d times", n)
	}
}

// TestHangingOneIsReplaced: a process that runs and does not answer has longer, since a
// busy machine may be the cause.
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
	if log := strings.Join(f.log.All(), "\n"); !strings.Contains(log, fmt.Sprintf("the doer, process %d, hangs", first[0])) {
		t.Errorf("log %q", log)
	}
}

// TestAwaitedOneIsReplaced: an awaited process has less than half a second, whether it
// sleeps or runs; one that is ready to run but cannot has longer.
func TestAwaitedOneIsReplaced(t *testing.T) {
	for _, how := range []string{"asleep", "busy"} {
		t.Run(how, func(t *testing.T) {
			f := newAnswering(t)
			deaf := f.opts.Lock + ".deaf"
			for _, word := range []string{deaf, f.opts.Lock + "." + how} {
				if err := os.WriteFile(word, nil, 0o600); err != nil {
					t.Fatal(err)
				}
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
		})
	}
}

// TestRunningOneGetsWhatItLacks: a process started without files gets them from the first
// Keeper that has some; a failure is reported once.
func TestRunningOneGetsWhatItLacks(t *testing.T) {
	f := newAnswering(t)
	watch(t, New(f.opts))
	f.answers(t)
	path := filepath.Join(t.TempDir(), "socket")
	var free atomic.Bool
	opts := f.opts
	opts.Lacks = func(answer string) bool { return answer != path }
	opts.Files = socketOnce(&free, path)
	denied := New(opts)
	watch(t, denied)
	eventually(t, "it is said", func() bool { return len(f.log.All()) > 0 })
	time.Sleep(10 * f.opts.Every)
	if lines := f.log.All(); len(lines) != 1 || !strings.Contains(lines[0], errTaken.Error()) {
		t.Errorf("log %q", lines)
	}
	free.Store(true)
	for range 2 { // of two pods, at once
		watch(t, New(opts))
	}
	eventually(t, "it has the socket", func() bool {
		p := ping(f.opts.Lock)
		defer p.close()
		return p.answer == path
	})
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if n := len(f.Started(t)); n != 1 {
		t.Errorf("started %d times", n)
	}
}

// TestNobodyWaitsForOneThatDoesNotStart: waiting clients are reset and new ones refused,
// though the process has the socket.
func TestNobodyWaitsForOneThatDoesNotStart(t *testing.T) {
	f := newFakeTool(t, "exec sleep 1000")
	var at string
	var conn net.Conn // waits from the beginning
	f.opts.Files = func() ([]*os.File, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		at = l.Addr().String()
		if conn, err = net.Dial("tcp", at); err != nil {
			return nil, err
		}
		file, err := l.(*net.TCPListener).File()
		return []*os.File{file}, err
	}
	k := New(f.opts)
	k.patience = 2 * startTime
	k.Ensure()
	defer k.Close(0)
	if conn == nil {
		t.Fatal("nobody waits")
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("who waits: %v", err)
	}
	if _, err := net.Dial("tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("who comes: %v", err)
	}
	eventually(t, "it is ended", func() bool {
		lock, err := lock(f.opts.Lock)
		if err != nil {
			return false
		}
		lock.Close()
		return true
	})
}

// TestOneWithoutASocketStays: it is starting, or an older version that had none.
func TestOneWithoutASocketStays(t *testing.T) {
	f := newFakeTool(t, "exec sleep 1000")
	f.opts.Every = time.Millisecond
	k := New(f.opts)
	k.patience = 0
	watch(t, k)
	eventually(t, "it starts", func() bool { return len(f.Started(t)) == 1 })
	pid := f.Started(t)[0]
	testkit.Stop(t, pid)
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
	c, err := Answer(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer of this process", func() bool {
		p := ping(path)
		defer p.close()
		return !p.silent && p.pid == os.Getpid()
	})
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}

// TestFullDisk: a start that fails for a full disk is not repeated again and again, by
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
	ensure := func() {
		for _, k := range keepers {
			k.Ensure()
		}
	}
	began := time.Now()
	eventually(t, "the first start has failed", func() bool {
		ensure()
		return len(f.log.All()) > 0
	})
	failed := time.Now()
	for time.Since(failed) < 4*time.Second {
		ensure()
		time.Sleep(10 * time.Millisecond)
	}
	log, n := f.log.All(), len(f.Started(t))
	// Again after 2 seconds, and not before 6, unless this test had no processor until then.
	if took := time.Since(began); took < 6*time.Second && n > 2 || len(log) > n {
		t.Errorf("started %d times in %v, log %q", n, took, log)
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
	note, moments := noting(t)
	f := newFakeTool(t, note+"; exit 3")
	k := New(f.opts)
	defer k.Close(0)
	k.Ensure()
	eventually(t, "the failure is logged", func() bool { return len(f.log.All()) == 1 })
	// As if that had failed.
	if err := os.Chtimes(f.opts.Lock, time.Now().Add(-time.Hour), time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second start", func() bool {
		k.Ensure()
		return len(moments()) >= 2
	})
	if all := moments(); all[1].Sub(all[0]) < 2*minRestart {
		t.Errorf("started at %v", all)
	}
}
