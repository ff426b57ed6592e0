package guard

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// roleEnv makes the test binary another program.
const roleEnv = "SHIMTRACE_TEST_ROLE"

const (
	// patience is how long a test waits for what must come.
	patience = testkit.Patience
	// quickly is the pause between looks at who hangs, where a test waits for that.
	quickly = 50 * time.Millisecond
)

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); role {
	case "":
	case "guard":
		dir := os.Args[1]
		err := Run(context.Background(), Options{Dir: dir, Moved: testMoved, Logf: logTo(os.Stderr)})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "other", "impost":
		err := map[string]func(string) error{"other": otherRole, "impost": impostRole}[role](os.Args[1])
		fmt.Fprintln(os.Stderr, err)
		os.Exit(0)
	default:
		signal.Ignore(unix.SIGPIPE)
		if err := testRelay(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "relay:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func logTo(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
}

// testMoved reads the counter at the beginning of a memory.
func testMoved(memory int) (uint64, error) {
	var b [8]byte
	_, err := unix.Pread(memory, b[:], 0)
	return binary.NativeEndian.Uint64(b[:]), err
}

// testRelay is a relay: DIR SOCKET INNER. It forwards bytes, and counts them in its
// memories. Roles that begin with resume are those of successors: what follows is what
// is wrong with them.
func testRelay(role string, args []string) error {
	dir, socket, inner := args[0], args[1], args[2]
	wrong, isSuccessor := strings.CutPrefix(role, "resume")
	r := &dummy{socket: socket, inner: inner}
	who := Registration{
		ID: socket, Program: "/proc/self/exe", Args: append([]string{os.Args[0]}, args...),
		Sandbox: filepath.Base(socket), Build: os.Getenv("TEST_BUILD"), Formats: map[string]int{"state": 1},
	}
	who.Program, _ = os.Executable()
	who.Env = []string{roleEnv + "=resume" + os.Getenv("TEST_NEXT"), "TEST_NEXT=" + os.Getenv("TEST_NEXT"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	opts := ClientOptions{Dir: dir, Who: who, Logf: logTo(os.Stderr), HandOver: r.handOver}
	if os.Getenv("TEST_VSOCK") != "" {
		opts.VSOCK = func(f *os.File, cid uint32) {
			fmt.Fprintf(f, "%d\n", cid)
			f.Close()
		}
	}
	if !isSuccessor {
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		r.listener = l.(*net.UnixListener)
		r.listener.SetUnlinkOnClose(false)
		if r.state, err = newMemory(); err != nil {
			return err
		}
		r.client = new(Client)
		r.client.Register(opts)
		r.client.Store(Entry{Name: "listener", Kind: Listener, Files: []syscall.Conn{r.listener}})
		r.client.Store(Entry{Name: "state", Files: []syscall.Conn{r.state}})
	} else {
		s, err := Inherit()
		if err != nil {
			return err
		}
		switch wrong {
		case "-dies":
			return fmt.Errorf("it dies")
		case "-refuses":
			_ = s.Ready(fmt.Errorf("state of version %d", s.Who.Formats["state"]))
			return fmt.Errorf("refused")
		case "-hangs":
			time.Sleep(time.Hour)
		}
		if err := s.Ready(nil); err != nil {
			return err
		}
		got, err := s.Await(context.Background())
		if err != nil {
			return nil // not needed
		}
		if wrong == "-dies-late" {
			return fmt.Errorf("it dies")
		}
		opts.Successor = got
		r.client = new(Client)
		for _, e := range got.Entries {
			files, err := r.adopt(e)
			if err != nil {
				return err
			}
			r.client.Store(e.Entry(files...))
		}
		r.bump(r.state)
		r.client.Register(opts)
		for _, f := range r.later {
			f()
		}
	}
	fmt.Println("up")
	return r.serve()
}

type dummy struct {
	socket, inner string
	listener      *net.UnixListener
	state         *os.File
	client        *Client
	later         []func()

	mu sync.Mutex
	n  int
}

func newMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "memory")
	return f, f.Truncate(8)
}

func (r *dummy) bump(memory *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b [8]byte
	_, _ = memory.ReadAt(b[:], 0)
	binary.NativeEndian.PutUint64(b[:], binary.NativeEndian.Uint64(b[:])+1)
	_, _ = memory.WriteAt(b[:], 0)
}

func (r *dummy) adopt(e Received) (files []syscall.Conn, err error) {
	switch e.Name {
	case "listener":
		l, err := net.FileListener(e.Files[0])
		if err != nil {
			return nil, err
		}
		e.Files[0].Close()
		r.listener = l.(*net.UnixListener)
		return []syscall.Conn{r.listener}, nil
	case "state":
		r.state = e.Files[0]
		return []syscall.Conn{r.state}, nil
	}
	var pair []*net.UnixConn
	for _, f := range e.Files[:2] {
		c, err := net.FileConn(f)
		if err != nil {
			return nil, err
		}
		f.Close()
		pair = append(pair, c.(*net.UnixConn))
	}
	r.n++
	r.later = append(r.later, func() { r.relay(e.Name, pair[0], pair[1], e.Files[2]) })
	return []syscall.Conn{pair[0], pair[1], e.Files[2]}, nil
}

func (r *dummy) handOver(context.Context) (func(), error) {
	if os.Getenv("TEST_KEEPS") != "" {
		return nil, fmt.Errorf("it would rather not")
	}
	return func() {}, nil
}

func (r *dummy) serve() error {
	for {
		c, err := r.listener.AcceptUnix()
		if err != nil {
			return err
		}
		in, err := net.Dial("unix", r.inner)
		if err != nil {
			return err
		}
		memory, err := newMemory()
		if err != nil {
			return err
		}
		r.n++
		name := fmt.Sprint("conn/", os.Getpid(), "/", r.n)
		r.client.Store(Entry{Name: name, Kind: Relayed, Files: []syscall.Conn{c, in.(*net.UnixConn), memory}})
		r.relay(name, c, in.(*net.UnixConn), memory)
	}
}

// relay forwards in the background. The word "leave" has the relay end in order.
func (r *dummy) relay(name string, a, b *net.UnixConn, memory *os.File) {
	forward := func(from, to *net.UnixConn) {
		buf := make([]byte, 4096)
		for {
			n, err := from.Read(buf)
			if err != nil {
				r.client.Remove(name)
				from.Close()
				to.Close()
				return
			}
			if strings.HasPrefix(string(buf[:n]), "leave") {
				r.client.Leave()
				os.Exit(0)
			}
			if strings.HasPrefix(string(buf[:n]), "crash") {
				os.Exit(2)
			}
			if strings.HasPrefix(string(buf[:n]), "freeze") {
				r.mu.Lock() // for ever
				_, _ = from.Write(buf[:n])
			}
			r.bump(memory)
			_, _ = to.Write(buf[:n])
		}
	}
	go forward(a, b)
	go forward(b, a)
}

// machine is one with a guard, and an inner shim that echoes.
type machine struct {
	t     *testing.T
	dir   string
	inner string
	log   *lines
}

func newMachine(t *testing.T) *machine {
	h := &machine{t: t, dir: shortDir(t), log: &lines{t: t}}
	t.Cleanup(func() { // successors, too, which live on without their guard
		eventually(t, "all processes have ended", func() bool {
			left := testkit.Processes(testkit.With(h.dir))
			for _, pid := range left {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			return len(left) == 0
		})
	})
	h.inner = filepath.Join(h.dir, "inner")
	l, err := net.Listen("unix", h.inner)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = io.Copy(c, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return h
}

// shortDir is a directory whose sockets' names fit into an address.
func shortDir(t *testing.T) string {
	return testkit.ShortDir(t)
}

// guard runs a guard in this process, until stop.
func (h *machine) guard(change func(*Options)) (stop func()) {
	h.t.Helper()
	// On a busy machine a successor may take long to come up.
	opts := Options{Dir: h.dir, Moved: testMoved, Logf: h.log.add, Build: "test", comesUp: patience}
	if change != nil {
		change(&opts)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- Run(ctx, opts) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(stop)
	eventually(h.t, "the guard answers", func() bool {
		_, _, err := Ask(context.Background(), h.dir)
		return err == nil
	})
	return stop
}

// looksQuickly has a guard look often at who hangs.
func looksQuickly(o *Options) { o.second = quickly }

// relay starts a relay process, and waits until it is registered.
func (h *machine) relay(name string, env ...string) (socket string, p *child) {
	h.t.Helper()
	socket = filepath.Join(h.dir, name)
	p = h.start("relay", []string{h.dir, socket, h.inner}, env...)
	p.expect("up")
	return socket, p
}

// relaying starts a relay process, with a connection that the guard has.
func (h *machine) relaying(env ...string) (socket string, p *child, c net.Conn, s Status) {
	h.t.Helper()
	socket, p = h.relay("relay", env...)
	c = connect(h.t, socket)
	call(h.t, c, "first")
	return socket, p, c, h.registered(socket, func(s Status) bool { return s.Entries == 3 })
}

// registered waits until a relay is guarded, and returns it.
func (h *machine) registered(socket string, holds func(Status) bool) (got Status) {
	h.t.Helper()
	eventually(h.t, "the relay is registered", func() bool {
		_, all, _ := Ask(context.Background(), h.dir)
		for _, s := range all {
			if s.ID == socket && s.Guarded && holds(s) {
				got = s
				return true
			}
		}
		return false
	})
	h.t.Cleanup(func() { _ = unix.Kill(got.PID, unix.SIGKILL) })
	return got
}

func anyStatus(Status) bool { return true }

// child is another process of the test binary.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func (h *machine) start(role string, args []string, env ...string) *child {
	h.t.Helper()
	return h.startAs(uint32(os.Geteuid()), role, args, env...)
}

func (h *machine) startAs(uid uint32, role string, args []string, env ...string) *child {
	h.t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	if int(uid) != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	cmd.Env = append(append(os.Environ(), roleEnv+"="+role), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	c := &child{t: h.t, cmd: cmd, lines: make(chan string, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	return c
}

func (c *child) expect(line string) {
	c.t.Helper()
	for {
		select {
		case got := <-c.lines:
			if got == line {
				return
			}
		case <-time.After(patience):
			c.t.Fatalf("process %d does not say %q", c.cmd.Process.Pid, line)
		}
	}
}

func (c *child) signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// call sends a word over a connection and expects it back.
func call(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(word))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != word {
		t.Fatalf("%q comes back as %q: %v", word, b, err)
	}
}

// unsent returns how many bytes of a connection the other side has not read.
func unsent(t *testing.T, c net.Conn) (n int) {
	t.Helper()
	err := host.Control(c.(*net.UnixConn), func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.TIOCOUTQ)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func connect(t *testing.T, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var eventually = testkit.Until

// lines is a log.
type lines struct {
	t   *testing.T
	mu  sync.Mutex
	all []string
}

func (l *lines) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	l.all = append(l.all, line)
}

func (l *lines) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.all, "\n"), text)
}
