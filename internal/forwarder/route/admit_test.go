package route

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host/hosttest"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// admitting is an endpoint that answers what it reads, behind Admit.
type admitting struct {
	*hosted
	net.Listener
	at       string
	warnings atomic.Int64
}

func startAdmitting(t *testing.T, opts RouterOptions) *admitting {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("root is needed, to act as another user")
	}
	g := &admitting{hosted: startHost(t, t.TempDir(), opts)}
	warn := g.opts.Warn
	g.opts.Warn = func(err error) {
		g.warnings.Add(1)
		warn(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if g.Listener, err = g.Admit(port.(*net.TCPListener)); err != nil {
		t.Fatal(err)
	}
	g.at = g.Addr().String()
	t.Cleanup(func() { g.Listener.Close() })
	return g
}

// answer answers connections until the port is closed.
func (g *admitting) answer(t *testing.T) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := g.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		g.Listener.Close()
		serving.Wait()
	})
}

// post connects, says something and waits for the answer.
func (g *admitting) post() error {
	conn, err := net.DialTimeout("tcp", g.at, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// flood connects as often as a thread can, as nobody, until stop is closed.
func (g *admitting) flood(t *testing.T, stop <-chan struct{}) (done <-chan struct{}) {
	to := unix.SockaddrInet4{Port: int(g.to().Port()), Addr: g.to().Addr().As4()}
	return hosttest.AsUser(t, hosttest.Nobody, func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if unix.Connect(fd, &to) == nil {
				_, _ = unix.Write(fd, []byte("POST /api/traces HTTP/1.1\r\n"))
			}
			unix.Close(fd)
		}
	})
}

func (g *admitting) to() netip.AddrPort { return g.Addr().(*net.TCPAddr).AddrPort() }

// turned counts connections that were turned away; a flood does not wait for that.
func turned(s Snapshot) uint64 { return s.Turned[turnedStranger] + s.Turned[turnedGone] }

// TestGuardFlood: another user who connects as often as possible costs runtimes next to
// no time and no span; the log has a line about it.
func TestGuardFlood(t *testing.T) {
	g := startAdmitting(t, RouterOptions{})
	g.answer(t)
	stop := make(chan struct{})
	var flooders []<-chan struct{}
	for range 4 {
		flooders = append(flooders, g.flood(t, stop))
	}
	eventually(t, "the flood has begun", func() bool { return turned(g.Snapshot()) > 1000 })
	var took []time.Duration
	for range 100 {
		began := time.Now()
		if err := g.post(); err != nil {
			t.Errorf("a runtime's post: %v", err)
		}
		took = append(took, time.Since(began))
		time.Sleep(5 * time.Millisecond)
	}
	close(stop)
	for _, f := range flooders {
		<-f
	}
	slices.Sort(took)
	s := g.Snapshot()
	t.Logf("%d connections turned away; a post on a connection of its own took %v, at most %v", turned(s), took[len(took)/2], took[len(took)-1])
	if len(s.Lost) > 0 {
		t.Errorf("lost %v", s.Lost)
	}
	if n := g.warnings.Load(); n > 4 { // one for strangers, one for those gone; a minute may pass
		t.Errorf("%d lines", n)
	}
	reliability.Row(t, reliability.Fault{
		Area: "Local users", Fault: "another user connects to the endpoint for runtimes' spans as often as he can",
		Pod: "nothing: posts are answered", Lost: "nothing",
	})
}

// TestGuardWithoutDiag: if the kernel has no module for single sockets, its lists of all
// sockets do.
func TestGuardWithoutDiag(t *testing.T) {
	var told []error
	g := startAdmitting(t, RouterOptions{diagnose: noDiag})
	var mu sync.Mutex
	g.opts.Warn = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err)
	}
	g.answer(t)
	for range 50 {
		if err := g.post(); err != nil {
			t.Fatalf("a runtime is not listened to: %v", err)
		}
	}
	stranger := hosttest.AsUser(t, hosttest.Nobody, func() {
		for range 50 {
			if err := g.post(); err == nil {
				t.Error("another user is listened to")
			}
		}
	})
	<-stranger
	s := g.Snapshot()
	if len(s.Lost) > 0 || s.Turned[turnedStranger] == 0 {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	defer mu.Unlock()
	causes := 0
	for _, err := range told {
		if errors.Is(err, errNoDiag) {
			causes++
		}
	}
	if causes != 1 {
		t.Errorf("the cause was said %d times: %v", causes, told)
	}
}

// TestGuardWithoutDescriptors: without free descriptors nobody unidentified is served,
// and nobody waits.
func TestGuardWithoutDescriptors(t *testing.T) {
	g := startAdmitting(t, RouterOptions{})
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.DialTimeout("tcp", g.at, patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		return conn
	}
	var foreign net.Conn
	<-hosttest.AsUser(t, hosttest.Nobody, func() { foreign = dial() })
	ours := dial()
	restore := noDescriptors(t)
	accepted := make(chan net.Conn)
	go func() {
		conn, err := g.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	for name, conn := range map[string]net.Conn{"another user": foreign, "a runtime": ours} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", name, err)
		}
	}
	restore()
	later := dial()
	conn := <-accepted
	defer conn.Close()
	if conn.RemoteAddr().String() != later.LocalAddr().String() {
		t.Errorf("%s is served, want %s", conn.RemoteAddr(), later.LocalAddr())
	}
	if s := g.Snapshot(); s.Lost[losses.NoDescriptors] != 1 || s.Turned[turnedStranger] != 1 || len(s.Lost) != 1 {
		t.Errorf("%+v", s)
	}
	reliability.Row(t, reliability.Fault{
		Area: "Processes", Fault: "the endpoint for runtimes' spans can open no more files",
		Pod: "nothing: its runtime's connection is reset", Lost: "one for each connection, as `runtime: no_descriptors`",
	})
}

// noDescriptors takes all descriptors that the process may have, until restore.
func noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		taken = append(taken, fd)
	}
	restore = sync.OnceFunc(func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	})
	t.Cleanup(restore)
	return restore
}

// TestGuardCloses: a waiting Accept returns, and nothing stays open.
func TestGuardCloses(t *testing.T) {
	g := startAdmitting(t, RouterOptions{})
	failed := make(chan error)
	go func() {
		_, err := g.Accept()
		failed <- err
	}()
	time.Sleep(10 * time.Millisecond)
	if err := g.Listener.Close(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", g.at); err == nil {
		conn.Close()
		t.Error("the port is still open")
	}
}
