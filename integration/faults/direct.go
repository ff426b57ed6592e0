package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// What goes to relays directly, as containerd does, with messages that containerd has
// no reason to send.

// echoService is the service of the shim that echoes; it has the methods Echo, Slow,
// Fail, Hang and the stream Stream.
const echoService = "shimtrace.test.Echo"

// EchoPath makes a directory with that shim and its wrapper, for rig.Options.Path.
func EchoPath(t testing.TB) string {
	t.Helper()
	bin, err := traced.Bin()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "containerd-shim-echo-v2"), "./faults/echo")
	build.Dir = filepath.Join(traced.Root(), "integration")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // guests have no libraries
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the shim that echoes: %v\n%s", err, out)
	}
	if err := os.Symlink(filepath.Join(bin, "containerd-shim-traced-v2"), filepath.Join(dir, echoWrapper)); err != nil {
		t.Fatal(err)
	}
	return dir
}

const echoWrapper = "containerd-shim-echo-traced-v2"

// An echoShim is a wrapped shim that nobody but the load talks to.
type echoShim struct {
	t      testing.TB
	in     *traced.Install
	bundle string
	conn   *ttrpc.Client
	log    *os.File
	end    func() // has the shim end, once
}

// startEcho starts it as containerd does.
func startEcho(t testing.TB, in *traced.Install) *echoShim {
	t.Helper()
	s := &echoShim{t: t, in: in, bundle: filepath.Join(in.Rig.Dir, "e")}
	if err := os.Mkdir(s.bundle, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.bundle, "config.json"), []byte(`{"ociVersion":"1.2.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.drainLog()
	address, ok := strings.CutPrefix(s.action("start"), "unix://")
	if !ok || filepath.Dir(address) == s.bundle {
		t.Fatalf("the relay is not in the inner shim's place: %q", address)
	}
	conn, err := dialSocket(in.Rig, address)
	if err != nil {
		t.Fatal(err)
	}
	s.conn = ttrpc.NewClient(conn)
	s.end = sync.OnceFunc(s.shutdown)
	t.Cleanup(s.end)
	return s
}

func (s *echoShim) drainLog() {
	path := filepath.Join(s.bundle, "log")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		s.t.Fatal(err)
	}
	log, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.log = log
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(s.t.Output(), log)
	}()
	s.t.Cleanup(func() {
		log.Close()
		<-done
	})
}

func (s *echoShim) action(name string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address := s.in.Rig.Address()
	cmd := s.in.Rig.Command(ctx, "/bin/sh", "-c", `cd "$0" && exec "$@"`, s.bundle, echoWrapper,
		"-namespace", s.in.Rig.Name, "-address", address, "-publish-binary", "/bin/true", "-id", "echo", "-bundle", s.bundle, name)
	for i, v := range cmd.Env {
		if path, ok := strings.CutPrefix(v, "PATH="); ok {
			cmd.Env[i] = "PATH=" + strings.Join(s.in.Path, ":") + ":" + path
		}
	}
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+s.in.Config, "NAMESPACE="+s.in.Rig.Name, "TTRPC_ADDRESS="+address+".ttrpc", "GRPC_ADDRESS="+address)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("%s of the echoing shim: %v\n%s", name, err, stderr.String())
	}
	return string(out)
}

// alive asks for an echo.
func (s *echoShim) alive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.conn.Call(ctx, echoService, "Echo", new(wrapperspb.BytesValue), new(wrapperspb.BytesValue)) == nil
}

// shutdown has the shim end, as containerd does with one whose container is deleted.
func (s *echoShim) shutdown() {
	defer s.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = s.conn.Call(ctx, "containerd.task.v2.Task", "Shutdown", new(emptypb.Empty), new(emptypb.Empty))
	s.action("delete")
}

// echoCall has the shim echo a message of up to 4 MB, which is as much as ttrpc takes.
func (l *Load) echoCall() error {
	size := rand.IntN(1 << 10)
	if rand.IntN(8) == 0 {
		size = rand.IntN(4<<20 - 1<<10)
	}
	at := rand.IntN(patternSize - size)
	sent := wrapperspb.Bytes(l.pattern[at : at+size])
	err := l.made("Echo", func(ctx context.Context) error {
		got := new(wrapperspb.BytesValue)
		err := l.echo.conn.Call(ctx, echoService, "Echo", sent, got)
		if err == nil && !bytes.Equal(got.Value, sent.Value) {
			err = fmt.Errorf("an echo of %d bytes is another", size)
		}
		return err
	})
	time.Sleep(time.Millisecond)
	return err
}

// Misbehave has the shim fail a call, answer one late, and one not at all.
func (l *Load) Misbehave() {
	body := wrapperspb.Bytes(l.pattern[:100])
	_ = l.made("Fail", func(ctx context.Context) error {
		err := l.echo.conn.Call(ctx, echoService, "Fail", wrapperspb.Bytes([]byte("so be it")), new(wrapperspb.BytesValue))
		if st := status.Convert(err); st.Code() != codes.FailedPrecondition || st.Message() != "told to fail: so be it" {
			return fmt.Errorf("another failure: %v", err)
		}
		return nil
	})
	_ = l.made("Slow", func(ctx context.Context) error {
		got := new(wrapperspb.BytesValue)
		err := l.echo.conn.Call(ctx, echoService, "Slow", body, got)
		if err == nil && !bytes.Equal(got.Value, body.Value) {
			err = errors.New("a late echo is another")
		}
		return err
	})
	_ = l.made("Hang", func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		err := l.echo.conn.Call(ctx, echoService, "Hang", body, new(wrapperspb.BytesValue))
		if st := status.Convert(err); st.Code() != codes.DeadlineExceeded && !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("another failure: %v", err)
		}
		return nil
	})
}

// echoStream has a stream of some messages echoed.
func (l *Load) echoStream() error {
	err := l.made("Stream", func(ctx context.Context) error {
		s, err := l.echo.conn.NewStream(ctx, &ttrpc.StreamDesc{StreamingClient: true, StreamingServer: true}, echoService, "Stream", nil)
		if err != nil {
			return err
		}
		for range 16 {
			size := rand.IntN(64 << 10)
			at := rand.IntN(patternSize - size)
			got := new(wrapperspb.BytesValue)
			if err := errors.Join(s.SendMsg(wrapperspb.Bytes(l.pattern[at:at+size])), s.RecvMsg(got)); err != nil {
				return err
			}
			if !bytes.Equal(got.Value, l.pattern[at:at+size]) {
				return fmt.Errorf("a stream's echo of %d bytes is another", size)
			}
		}
		if err := s.CloseSend(); err != nil {
			return err
		}
		if err := s.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
			return fmt.Errorf("at the stream's end: %v", err)
		}
		return nil
	})
	time.Sleep(time.Millisecond)
	return err
}

// askRelay asks a pod's relay over a connection of its own, with a request of a
// megabyte that the shim understands, and with one that is small.
func (l *Load) askRelay(p *pod) error {
	conn, err := dialSocket(l.in.Rig, p.socket)
	if err == nil {
		client := ttrpc.NewClient(conn)
		defer client.Close()
		for i := 0; i < 20 && err == nil; i++ {
			req := &taskv2.StateRequest{ID: p.id}
			if i%10 == 0 {
				// Field 100, which nobody knows, of length-delimited type.
				req.ProtoReflect().SetUnknown(append([]byte{0xa2, 0x06, 0x80, 0x80, 0x40}, l.pattern[:1<<20]...))
			}
			err = l.quick("State of the relay", func(ctx context.Context) error {
				var got taskv2.StateResponse
				err := client.Call(ctx, p.service, "State", req, &got)
				if err == nil && got.Pid != p.pid {
					err = fmt.Errorf("another answer: %v", &got)
				}
				return err
			})
			time.Sleep(time.Millisecond)
		}
		return err
	}
	return l.made("connect to the relay", func(context.Context) error { return err })
}

// Hammer makes so many calls of the first pod's shim, on 16 connections to its relay,
// which are closed and opened anew after a thousand calls each.
func (l *Load) Hammer(calls int) {
	p := l.pods[0]
	var left atomic.Int64
	left.Store(int64(calls))
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for left.Load() > 0 {
				if err := l.hammer(p, &left); err != nil {
					return
				}
			}
		})
	}
	workers.Wait()
}

func (l *Load) hammer(p *pod, left *atomic.Int64) error {
	conn, err := dialSocket(l.in.Rig, p.socket)
	if err != nil {
		return l.made("connect to the relay", func(context.Context) error { return err })
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	for range 1000 {
		if left.Add(-1) < 0 {
			return nil
		}
		if err := l.quick("State of the relay", func(ctx context.Context) error {
			return client.Call(ctx, p.service, "State", &taskv2.StateRequest{ID: p.id}, new(taskv2.StateResponse))
		}); err != nil {
			return err
		}
	}
	return nil
}

// relaySocket returns the relay's address and the task service of its shim.
func (l *Load) relaySocket(id string) (socket, service string, err error) {
	bundle := filepath.Join(l.in.Rig.Dir, "state/io.containerd.runtime.v2.task", l.in.Rig.Name, id)
	var state struct {
		Relay string `json:"relay_socket"`
	}
	text, err := os.ReadFile(filepath.Join(bundle, "shimtrace.json"))
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	service = "containerd.task.v2.Task"
	if _, gone := os.Stat(filepath.Join(bundle, "bootstrap.json")); gone == nil {
		service = "containerd.task.v3.Task"
	}
	return state.Relay, service, err
}

// dialSocket connects to a socket of a shim's, which is in the rig's mount namespace.
func dialSocket(r *rig.Rig, socket string) (net.Conn, error) {
	if strings.HasPrefix(socket, "/run/") {
		socket = filepath.Join(r.Dir, socket)
	}
	return net.DialTimeout("unix", socket, patience)
}
