package shim

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// vm is the VM of a guarded pod: this test is its VMM, its agent, and the runtime that
// asks the agent.
type vm struct {
	*guardedPod
	socket string
	vmm    *net.UnixListener
	agent  *ttrpc.Server
	conns  chan net.Conn
	hold   chan struct{} // closed: WaitProcess is answered
	waits  chan struct{}
	over   sync.WaitGroup
}

const agentService = "grpc.AgentService"

// newVM starts a VM as a runtime does in Create.
func newVM(t *testing.T) *vm {
	t.Helper()
	return newVMWith(t, "")
}

// newVMWith starts one with something more in the configuration.
func newVMWith(t *testing.T, more string) *vm {
	t.Helper()
	dir := testkit.ShortDir(t)
	v := &vm{socket: filepath.Join(dir, "c1", "vm.sock"), conns: make(chan net.Conn), hold: make(chan struct{}), waits: make(chan struct{}, 1)}
	v.guardedPod = newGuardedPodWith(t, fmt.Sprintf("[agent]\nreceive = \"on\"\ninject = \"on\"\n[agent.sockets]\nvmm = %q\n[jaeger]\nreceive = \"off\"\n%s", filepath.Join(dir, "{sandbox}", "vm.sock"), more))
	release := v.guardedPod.hold("Create")
	created := make(chan error, 1)
	go func() { created <- v.call("Create") }()
	v.guardedPod.waits("Create")
	if err := os.Mkdir(filepath.Dir(v.socket), 0o700); err != nil {
		t.Fatal(err)
	}
	v.vmm = shimtest.Listen(t, v.socket)
	v.over.Go(v.serveVMM)
	var err error
	if v.agent, err = ttrpc.NewServer(); err != nil {
		t.Fatal(err)
	}
	v.agent.Register(agentService, map[string]ttrpc.Method{
		"CreateContainer": func(context.Context, func(any) error) (any, error) { return new(emptypb.Empty), nil },
		"WaitProcess": func(context.Context, func(any) error) (any, error) {
			v.waits <- struct{}{}
			<-v.hold
			return new(emptypb.Empty), nil
		},
	})
	v.over.Go(func() { _ = v.agent.Serve(context.Background(), (*accepted)(v)) })
	t.Cleanup(func() {
		v.vmm.Close()
		v.agent.Close()
		close(v.conns)
		v.over.Wait()
	})
	shimtest.Eventually(t, "the place of the VMM's socket is taken", func() bool {
		aside, _ := filepath.Glob(filepath.Join(filepath.Dir(v.socket), ".shimtrace-vm.sock-*"))
		return len(aside) == 1
	})
	release()
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	return v
}

// serveVMM agrees to whoever asks for the agent.
func (v *vm) serveVMM() {
	for {
		conn, err := v.vmm.Accept()
		if err != nil {
			return
		}
		v.over.Go(func() {
			line, err := readLine(conn)
			if err == nil && line == "CONNECT 1024\n" {
				_, err = io.WriteString(conn, "OK 1073741824\n")
			}
			if err != nil {
				conn.Close()
				return
			}
			v.conns <- conn
		})
	}
}

// readLine reads no more than a line.
func readLine(conn net.Conn) (line string, err error) {
	for b := make([]byte, 1); err == nil && (line == "" || line[len(line)-1] != '\n'); {
		if _, err = conn.Read(b); err == nil {
			line += string(b)
		}
	}
	return line, err
}

// accepted is a listener of the agent's connections.
type accepted vm

func (a *accepted) Accept() (net.Conn, error) {
	conn, ok := <-a.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (a *accepted) Close() error   { return nil }
func (a *accepted) Addr() net.Addr { return a.vmm.Addr() }

// ask connects to the agent as a runtime does.
func (v *vm) ask() *ttrpc.Client {
	v.t.Helper()
	conn, err := net.Dial("unix", v.socket)
	if err != nil {
		v.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(testkit.Patience))
	_, err = io.WriteString(conn, "CONNECT 1024\n")
	line, rerr := readLine(conn)
	if err = errors.Join(err, rerr, conn.SetDeadline(time.Time{})); err != nil || line != "OK 1073741824\n" {
		v.t.Fatalf("%q, %v", line, err)
	}
	return ttrpc.NewClient(conn)
}

// TestKataRelayKilled: the runtime and the agent notice nothing of it: requests get their
// answers, connections are made through the place of the VMM's socket, and what the agent
// sends arrives, also a span of which a part had been sent.
func TestKataRelayKilled(t *testing.T) {
	v := newVM(t)
	frames := captured.Frames(t, captured.Go+".agent")
	total := countFrames(t, frames)
	v.awaitSocket()
	stream := v.connect()
	cut := len(frames)/2 + 7
	if _, err := stream.Write(frames[:cut]); err != nil {
		t.Fatal(err)
	}
	runtime := v.ask()
	defer runtime.Close()
	waited := make(chan error, 1)
	go func() {
		waited <- runtime.Call(context.Background(), agentService, "WaitProcess", new(emptypb.Empty), new(emptypb.Empty))
	}()
	<-v.waits
	for range 2 {
		v.killRelay()
		if err := runtime.Call(t.Context(), agentService, "CreateContainer", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
			t.Errorf("a request on the connection that there was: %v", err)
		}
		another := v.ask()
		if err := another.Call(t.Context(), agentService, "CreateContainer", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
			t.Errorf("a request on a new connection: %v", err)
		}
		another.Close()
	}
	if _, err := stream.Write(frames[cut:]); err != nil {
		t.Errorf("the agent: %v", err)
	}
	stream.Close()
	close(v.hold)
	if err := <-waited; err != nil {
		t.Errorf("the request that waited: %v", err)
	}
	v.must("Start", "Delete")
	runtime.Close()
	v.end()
	spans, lost := v.trace()
	if n := len(spans["CreateContainer"]); n == 0 || n > 4 {
		t.Errorf("%d spans of requests; lost %v", n, lost)
	}
	// Of the agent's spans, the captured ones are old: each is there, counted, or quiet.
	got := count(spans)
	t.Logf("%d spans in all, the agent sent %d; lost %v", got, total, lost)
	if got < total/4 || lost["agent: "+losses.RelayDied.String()] == 0 {
		t.Errorf("%d spans are there, the agent sent %d; lost %v", got, total, lost)
	}
}

func count(spans map[string][]*tracepb.Span) (n int) {
	for _, all := range spans {
		n += len(all)
	}
	return n
}

// awaitSocket waits for the socket where the agent connects.
func (v *vm) awaitSocket() {
	v.t.Helper()
	shimtest.Eventually(v.t, "the agent can connect", func() bool {
		_, err := os.Lstat(v.socket + "_10240")
		return err == nil
	})
}

// connect connects as the agent does, at the first attempt.
func (v *vm) connect() net.Conn {
	v.t.Helper()
	conn, err := net.Dial("unix", v.socket+"_10240")
	if err != nil {
		v.t.Fatalf("the agent is refused, and does not start: %v", err)
	}
	return conn
}

// TestKataAgentConnectsBetweenRelays: an agent that connects while no relay lives notices
// nothing of it, and its spans are in the trace.
func TestKataAgentConnectsBetweenRelays(t *testing.T) {
	v := newVM(t)
	frames := captured.Frames(t, captured.Go+".agent")
	total := countFrames(t, frames)
	v.awaitSocket()
	before, err := os.Lstat(v.socket + "_10240")
	if err != nil {
		t.Fatal(err)
	}
	goOn := v.killRelayWithoutSuccessor()
	stream := v.connect()
	sent := make(chan error, 1)
	go func() {
		_, err := stream.Write(frames)
		sent <- errors.Join(err, stream.Close())
	}()
	goOn()
	if err := <-sent; err != nil {
		t.Errorf("the agent: %v", err)
	}
	// What a relay has read and not placed yet is lost, and counted, if it is killed.
	shimtest.Eventually(t, "what the agent sent is in the journal", func() bool {
		spans, _ := v.trace()
		return count(spans) >= total/4
	})
	v.killRelay() // also after that one
	v.connect().Close()
	if now, err := os.Lstat(v.socket + "_10240"); err != nil || !os.SameFile(before, now) {
		t.Errorf("the agent's socket is another one: %v", err)
	}
	v.must("Start", "Delete")
	v.end()
	spans, lost := v.trace()
	if got := count(spans); got < total/4 {
		t.Errorf("%d spans are there, the agent sent %d; lost %v", got, total, lost)
	}
	if left, _ := os.ReadDir(filepath.Dir(v.socket)); len(left) != 1 {
		t.Errorf("in the VMM's directory are %v", left)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "an agent connects after its relay was killed, before another one is there",
		Pod:   "nothing: the agent's connection is taken, and read when the next relay is there",
		Lost:  "nothing of what the agent sends meanwhile",
	})
}

// TestKataRemovedBetweenRelays: the VMM's directory is removed while no relay lives, which
// the one that follows does not hinder; what waits there is read.
func TestKataRemovedBetweenRelays(t *testing.T) {
	for name, whole := range map[string]bool{"whole": true, "inside": false} {
		t.Run(name, func(t *testing.T) {
			v := newVM(t)
			frames := captured.Frames(t, captured.Go+".agent")
			v.awaitSocket()
			goOn := v.killRelayWithoutSuccessor()
			stream := v.connect()
			sent := make(chan error, 1)
			go func() {
				_, err := stream.Write(frames)
				sent <- errors.Join(err, stream.Close())
			}()
			dir := filepath.Dir(v.socket)
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 3 {
				t.Fatalf("in the VMM's directory are %v, %v", files, err)
			}
			for _, f := range files {
				if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
					t.Fatal(err)
				}
			}
			if whole {
				if err := os.Remove(dir); err != nil {
					t.Fatal(err)
				}
			}
			goOn()
			if err := <-sent; err != nil {
				t.Errorf("the agent: %v", err)
			}
			for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Fatalf("there is something in the VMM's directory: %v", left)
				}
			}
			if err := os.Remove(dir); whole != errors.Is(err, os.ErrNotExist) || !whole && err != nil {
				t.Errorf("the VMM's directory: %v", err)
			}
			v.must("Delete")
			v.end()
			if spans, lost := v.trace(); count(spans) < countFrames(t, frames)/4 {
				t.Errorf("%d spans are there; lost %v", count(spans), lost)
			}
		})
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "a VMM's directory is removed, or about to be, after its relay was killed, before another one is there",
		Pod:   "nothing: the directory stays empty",
		Lost:  "nothing of what the agent had sent before",
	})
}

// TestKataRelayKilledInWindow: a window of tracing on demand goes on, and has the requests
// to the agent in it that come after.
func TestKataRelayKilledInWindow(t *testing.T) {
	v := newVMWith(t, "[trace]\nmode = \"dynamic\"\n")
	v.awaitSocket()
	runtime := v.ask()
	defer runtime.Close()
	on := v.turn(control.DoOn)
	v.killRelay()
	if err := runtime.Call(t.Context(), agentService, "CreateContainer", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
		t.Error(err)
	}
	v.connect().Close()
	if a := v.turn(control.DoOff); !a.Changed || a.Window.TraceID != on.Window.TraceID {
		t.Errorf("off: %+v, it was on as %+v", a, on.Window)
	}
	if err := runtime.Call(t.Context(), agentService, "CreateContainer", new(emptypb.Empty), new(emptypb.Empty)); err != nil {
		t.Error(err)
	}
	v.must("Start", "Delete")
	runtime.Close()
	v.end()
	spans, lost := v.trace()
	if len(spans["CreateContainer"]) != 1 || len(spans["Start"]) != 0 || len(spans[names.SwitchedOff]) != 1 || len(spans[names.RelayResumed]) != 1 {
		t.Errorf("spans %v, lost %v", spans, lost)
	}
	for _, all := range spans {
		for _, s := range all {
			if id := hex.EncodeToString(s.TraceId); id != on.Window.TraceID {
				t.Errorf("%s is in the trace %s", s.Name, id)
			}
		}
	}
}

// countFrames returns the number of the agent's spans in its stream.
func countFrames(t *testing.T, frames []byte) (n int) {
	t.Helper()
	for r := agent.NewReader(bytes.NewReader(frames), agent.Options{}); ; n++ {
		if _, err := r.Next(); err == io.EOF {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
