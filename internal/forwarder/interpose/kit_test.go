package interpose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmtest"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) {
	vmtest.Main(m, map[string]func(args []string) error{"relay": relayRole, "vmm": vmmRole})
}

const patience = testkit.Patience

var (
	start      = vmtest.Start
	eventually = testkit.Until
	needRoot   = vmtest.NeedRoot
)

// relayRole takes a place: PATTERN [STEP], and waits for its death there.
func relayRole(args []string) error {
	o := Options{Patterns: []listen.Pattern{{VMM: "test", Path: args[0]}}, Relay: copyRelay, Warn: func(err error) { fmt.Println("warning", err) }}
	o.step = func(name string) {
		if len(args) > 1 && args[1] == name {
			fmt.Println(name)
			select {}
		}
	}
	i, err := New("pod", o)
	if err != nil {
		return err
	}
	go func() {
		for i.Counts() == (Counts{}) {
			time.Sleep(time.Millisecond)
		}
		fmt.Println("counted")
	}()
	i.Serve(context.Background())
	return nil
}

// vmmRole is a VMM: PATH.
func vmmRole(args []string) error {
	v := &vmm{}
	v.agent.Store(true)
	l, err := net.Listen("unix", args[0])
	if err != nil {
		return err
	}
	fmt.Println("listens")
	v.accept(l.(*net.UnixListener))
	return nil
}

// copyRelay relays bytes as they come.
func copyRelay(client, server net.Conn) {
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
		_ = to.(interface{ CloseWrite() error }).CloseWrite()
	}
	both.Go(func() { one(client, server) })
	one(server, client)
	both.Wait()
	client.Close()
	server.Close()
}

// vmm is a VMM's hybrid VSOCK: its socket, and an agent that sends what it is told to.
type vmm struct {
	path  string
	agent atomic.Bool                 // it listens
	talk  func(*net.UnixConn, string) // for lines that ask for no port; nil closes
	l     *net.UnixListener
	sink  atomic.Bool  // the agent says nothing
	mute  atomic.Bool  // the VMM does not answer
	asked atomic.Int64 // lines that were read
	conns sync.WaitGroup
	total atomic.Int64
}

// startVMM makes a VMM with its socket at path and an agent that listens.
func startVMM(t testing.TB, path string) *vmm {
	t.Helper()
	v := &vmm{path: path}
	v.agent.Store(true)
	v.listen(t)
	t.Cleanup(func() {
		v.l.Close()
		v.conns.Wait()
	})
	return v
}

func (v *vmm) listen(t testing.TB) {
	t.Helper()
	var err error
	if v.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: v.path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	v.l.SetUnlinkOnClose(false)
	v.conns.Go(func() { v.accept(v.l) })
}

// end ends the VMM in order: it removes its name.
func (v *vmm) end(t testing.TB) {
	v.l.Close()
	if err := os.Remove(v.path); err != nil {
		t.Error(err)
	}
}

func (v *vmm) accept(l *net.UnixListener) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		v.total.Add(1)
		v.conns.Go(func() {
			defer conn.Close()
			v.serve(conn)
		})
	}
}

func (v *vmm) serve(conn *net.UnixConn) {
	// As VMMs do: byte by byte up to the end of the line.
	var line []byte
	for b := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; {
		if _, err := conn.Read(b); err != nil || len(line) > 32 {
			return
		}
		line = append(line, b[0])
	}
	v.asked.Add(1)
	if v.mute.Load() {
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{conn})
		return
	}
	text := strings.TrimSpace(string(line))
	word, port, _ := strings.Cut(text, " ")
	switch {
	case !strings.EqualFold(word, "connect"):
		if v.talk != nil {
			v.talk(conn, text)
		}
		return
	case port == "1024" && !v.agent.Load():
		return
	}
	fmt.Fprintf(conn, "OK %d\n", 1<<30)
	if v.sink.Load() {
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn})
		return
	}
	_, _ = io.Copy(struct{ io.Writer }{conn}, struct{ io.Reader }{conn})
}

// interposer takes the place of sockets at pattern until the test ends, or until
// stop.
func interposer(t testing.TB, pattern string, o Options) (i *Interposer, stop func()) {
	t.Helper()
	o.Patterns = []listen.Pattern{{VMM: "test", Path: pattern}}
	if o.Relay == nil {
		o.Relay = copyRelay
	}
	if o.Warn == nil {
		o.Warn = func(err error) { t.Log("warning:", err) }
	}
	i, err := New("pod", o)
	if err != nil {
		t.Fatal(err)
	}
	i.taken = 5 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { i.Serve(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		serving.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := i.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return i, stop
}

// at returns a pattern below its own directory, and the path of pod's socket.
func at(t testing.TB) (pattern, path string) {
	t.Helper()
	dir := t.TempDir()
	return filepath.Join(dir, "{sandbox}", "vm.sock"), filepath.Join(dir, "pod", "vm.sock")
}

// place returns a VMM's socket in its own directory.
func vmmAt(t testing.TB) (pattern string, v *vmm) {
	t.Helper()
	pattern, path := at(t)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	return pattern, startVMM(t, path)
}

// dial connects, or fails the test.
func dial(t testing.TB, path string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.UnixConn)
}

// converse asks for a port and checks that its message is echoed.
func converse(conn net.Conn, ask, say string) error {
	if _, err := io.WriteString(conn, ask); err != nil {
		return err
	}
	want := "OK 1073741824\n"
	for _, w := range []string{want, say} {
		if w == say {
			if _, err := io.WriteString(conn, say); err != nil {
				return err
			}
		}
		got := make([]byte, len(w))
		if _, err := io.ReadFull(conn, got); err != nil {
			return fmt.Errorf("instead of %q: %w", w, err)
		}
		if string(got) != w {
			return fmt.Errorf("got %q, not %q", got, w)
		}
	}
	return nil
}

func mustConverse(t testing.TB, path string) {
	t.Helper()
	conn := dial(t, path)
	if err := converse(conn, "CONNECT 1024\n", "request"); err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func identify(t testing.TB, path string) (vmmdir.ID, unix.Stat_t) {
	t.Helper()
	id, st, err := vmmdir.Identify(path)
	if err != nil {
		t.Fatal(err)
	}
	return id, st
}

// interposed reports whether the socket at path is ours, with the VMM's under the hidden name.
func interposed(path string) bool {
	id, _, err := vmmdir.Identify(path)
	if err != nil {
		return false
	}
	_, _, err = vmmdir.Identify(filepath.Join(filepath.Dir(path), hiddenName(filepath.Base(path), id)))
	return err == nil
}

// taken waits until the place of the socket at path is taken.
func taken(t testing.TB, path string) {
	t.Helper()
	eventually(t, "the place is taken", func() bool { return interposed(path) })
}

// names returns the names in path's directory.
func names(t testing.TB, path string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// alone fails the test if there is anything beside the socket at path.
func alone(t testing.TB, path string) {
	t.Helper()
	if got := names(t, path); len(got) != 1 || got[0] != filepath.Base(path) {
		t.Errorf("in its directory: %v", got)
	}
}

// descriptors counts this process's descriptors.
func descriptors(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// lines makes a log of warnings.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) warn(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(&l.buf, err)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func refused(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}
