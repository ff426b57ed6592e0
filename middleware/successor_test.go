package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware"
)

// successorEnv makes the test binary a relay's process: it waits at descriptor 3 to be
// told which connection to relay, and says that it does.
const successorEnv = "SHIMTRACE_TEST_SUCCESSOR"

// stopsEnv has the first process stop when it is to end a span, and those after it tell the
// test, by a byte, of each span that they have ended.
const stopsEnv = "SHIMTRACE_TEST_STOPS"

// stops is an observer, and a tells an exporter, for that.
type stops struct{ middleware.NopObserver }

func (stops) Answered(*middleware.Call) {
	_ = unix.Kill(os.Getpid(), unix.SIGSTOP) // another thread may be the first to stop
	select {}
}

type tells struct{ *net.UnixConn }

func (c tells) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	_, err := c.Write([]byte{byte(len(spans))})
	return err
}

func (tells) Shutdown(context.Context) error { return nil }

// successor relays one connection: a new one of two descriptors, whose memory it sends, or
// one of three that goes on.
func successor() error {
	debug.SetGCPercent(-1)
	f := os.NewFile(3, "control")
	conn, err := net.FileConn(f)
	if err != nil {
		return err
	}
	control := conn.(*net.UnixConn)
	files, err := receiveFiles(control)
	if errors.Is(err, io.EOF) {
		return nil // the test is over
	}
	if err != nil || len(files) < 2 {
		return fmt.Errorf("told of %d descriptors: %w", len(files), err)
	}
	var ends [2]net.Conn
	for i := range ends {
		if ends[i], err = net.FileConn(files[i]); err != nil {
			return err
		}
		files[i].Close()
	}
	provider, observer := sdktrace.NewTracerProvider(), middleware.Observer(middleware.NopObserver{})
	switch {
	case os.Getenv(stopsEnv) == "":
	case len(files) == 2:
		observer = stops{}
	default:
		provider.RegisterSpanProcessor(sdktrace.NewSimpleSpanProcessor(tells{control}))
	}
	relay := middleware.NewRelay(
		middleware.WithTracerProvider(provider),
		middleware.WithObserver(observer),
		propagators("tracecontext", "baggage"),
		middleware.WithErrorHandler(func(err error) { fmt.Fprintln(os.Stderr, err) }),
		middleware.WithHandover(middleware.Handover{Begun: func(_, _ net.Conn, m *handover.Memory) func() {
			if err := sendFiles(control, m.File()); err != nil {
				panic(err)
			}
			return nil
		}, WithIDs: withIDs}))
	if len(files) == 2 {
		relay.Connect(ends[0], ends[1])
		return nil
	}
	memory, err := handover.Open(files[2])
	if err != nil {
		return err
	}
	return relay.Resume(ends[0], ends[1], memory)
}

func sendFiles(c *net.UnixConn, files ...*os.File) error {
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	_, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(fds...), nil)
	return err
}

func receiveFiles(c *net.UnixConn) (files []*os.File, err error) {
	space := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), space)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(space[:n])
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, err
}

// holder is what a guard is to a relay: it has copies of the descriptors, and starts one
// process after another. The next one waits while the last one lives.
type holder struct {
	t              testing.TB
	client, server *os.File
	memory         *os.File // nil at first
	standby, now   *relayProcess
}

type relayProcess struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	ended   chan error
}

// keep relays between two wires in processes that can be killed.
func keep(t testing.TB, size int) (*holder, *wires) {
	t.Helper()
	k := &holder{t: t}
	w := &wires{done: make(chan struct{})}
	for outer, inner := range map[**net.UnixConn]**os.File{&w.client: &k.client, &w.server: &k.server} {
		a, b := socketpair(t)
		for _, c := range []*net.UnixConn{a, b} {
			if size > 0 {
				_ = c.SetWriteBuffer(size)
			}
		}
		f, err := b.File()
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		*outer, *inner = a, f
		if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
			t.Fatal(err)
		}
	}
	k.standby = k.start()
	t.Cleanup(func() {
		for _, p := range []*relayProcess{k.now, k.standby} {
			if p != nil {
				p.kill()
			}
		}
		k.hangUp()
	})
	k.resume()
	return k, w
}

func (k *holder) start() *relayProcess {
	near, far := socketpair(k.t)
	f, err := far.File()
	if err != nil {
		k.t.Fatal(err)
	}
	defer f.Close()
	far.Close()
	p := &relayProcess{cmd: exec.Command(os.Args[0]), control: near, ended: make(chan error, 1)}
	p.cmd.Env = append(os.Environ(), successorEnv+"=1")
	p.cmd.Stderr = os.Stderr
	p.cmd.ExtraFiles = []*os.File{f}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p
}

func (p *relayProcess) kill() {
	_ = p.cmd.Process.Kill()
	p.ended <- <-p.ended
	p.control.Close()
}

// resume has the standby go on, and starts the next one.
func (k *holder) resume() {
	k.now, k.standby = k.standby, nil
	files := []*os.File{k.client, k.server}
	if k.memory != nil {
		files = append(files, k.memory)
	}
	if err := sendFiles(k.now.control, files...); err != nil {
		k.t.Fatal(err)
	}
	memory, err := receiveFiles(k.now.control)
	if err != nil || len(memory) != 1 {
		k.t.Fatalf("the relay does not say that it relays: %v", err)
	}
	if k.memory == nil {
		k.memory = memory[0]
	} else {
		memory[0].Close()
	}
	k.standby = k.start()
}

// kill kills the relay and has another one go on. It reports whether it had ended.
func (k *holder) kill() (ended bool) {
	select {
	case err := <-k.now.ended:
		k.now.ended <- err
		if err != nil {
			k.t.Fatalf("the relay ended: %v", err)
		}
		return true
	default:
	}
	k.now.kill()
	k.resume()
	return false
}

// hangUp closes the copies of the descriptors.
func (k *holder) hangUp() {
	for _, f := range []*os.File{k.client, k.server, k.memory} {
		if f != nil {
			f.Close()
		}
	}
}
