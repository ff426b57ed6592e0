// Package memory replays the life of captured Kata pods through a real relay process,
// to see what it takes of memory once the pod runs and is left alone.
//
// Everything of shimtrace's is real: its shim, started as containerd starts it, and its
// endpoint for the runtimes' spans. The inner shim does nothing but answer, and post
// what the pod's runtime has posted; the test is the pod's VM, and sends what its agent
// has sent.
package memory

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/idleshim"
	"github.com/shimtrace/shimtrace/integration/memory/post"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// patience bounds every wait, and a pod's life.
const patience = testkit.Patience

// replay is a pod in the middle of its life.
type replay struct {
	tb    testing.TB
	dir   string
	pod   *captured.Pod
	relay int // its process

	calls, inner *ttrpc.Client
	agent        net.Conn
}

// start starts the shim of a pod as containerd does, and the pod's agent.
func start(tb testing.TB, name string) *replay {
	tb.Helper()
	bin, err := traced.Bin()
	check(tb, err)
	r := &replay{tb: tb, pod: captured.Load(tb, name)}
	r.dir, err = tempdir.Make()
	check(tb, err)
	tb.Cleanup(func() { os.RemoveAll(r.dir) })
	bundle, vm := filepath.Join(r.dir, "bundle"), filepath.Join(r.dir, "vm", r.pod.Sandbox)
	check(tb, os.Mkdir(bundle, 0o711))
	build(tb, "./memory/inner", filepath.Join(r.dir, "containerd-shim-kata-v2"))
	link := filepath.Join(r.dir, "containerd-shim-kata-traced-v2")
	check(tb, os.Symlink(filepath.Join(bin, "containerd-shim-traced-v2"), link))
	shipper, err := traced.ImpatientShipper(r.dir)
	check(tb, err)
	endpoint := testkit.FreePort(tb)
	config := filepath.Join(r.dir, "config.toml")
	check(tb, os.WriteFile(config, fmt.Appendf(nil, "%sstate_dir = %q\n[journal]\ndir = %q\n[export]\nshipper = %q\n[jaeger]\nlisten = %q\n[agent.sockets]\ntest = %q\n",
		traced.Patient, filepath.Join(r.dir, "state"), filepath.Join(r.dir, "journal"), shipper, endpoint, filepath.Join(r.dir, "vm", "{sandbox}", "clh.sock")), 0o600))

	r.calls, r.inner = startShim(tb, link, bundle, r.pod.Sandbox, append(environ(r.dir, config), post.URLEnv+"=http://"+endpoint+"/api/traces"))
	r.relay = processOf(tb, link, "relay", r.pod.Sandbox)
	tb.Cleanup(r.end)
	check(tb, os.MkdirAll(vm, 0o700))
	await(tb, "the relay listens for the agent", func() bool {
		r.agent, err = net.Dial("unix", filepath.Join(vm, "clh.sock_10240"))
		return err == nil
	})
	return r
}

// build builds a program of module integration.
func build(tb testing.TB, pkg, path string) {
	tb.Helper()
	build := exec.Command("go", "build", "-o", path, pkg)
	build.Dir = filepath.Join(traced.Root(), "integration")
	if out, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
}

// environ is a shim's environment, with the directory on its PATH.
func environ(dir, config string) []string {
	return append(os.Environ(), "TTRPC_ADDRESS=/run/none.sock.ttrpc", "GRPC_ADDRESS=/run/none.sock", "NAMESPACE=k8s.io", "PATH="+dir+":"+os.Getenv("PATH"),
		"SHIMTRACE_CONFIG="+config, "GOMAXPROCS=2") // containerd's shims have that
}

// startShim starts a shim as containerd does, and connects to the relay and to the inner
// shim.
func startShim(tb testing.TB, link, bundle, id string, env []string) (relay, inner *ttrpc.Client) {
	tb.Helper()
	check(tb, os.WriteFile(filepath.Join(bundle, "config.json"), []byte(`{"ociVersion":"1.2.0"}`), 0o600))
	cmd := exec.Command(link, "-namespace", "k8s.io", "-address", "/run/none.sock", "-publish-binary", "/bin/true", "-id", id, "start")
	cmd.Dir, cmd.Env = bundle, env
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		tb.Fatalf("start: %v", err)
	}
	own := filepath.Join(bundle, idleshim.Socket)
	address, ok := strings.CutPrefix(string(out), "unix://")
	if !ok || address == own {
		tb.Fatalf("the relay is not in the inner shim's place: %q", out)
	}
	return dial(tb, address), dial(tb, own)
}

func dial(tb testing.TB, sock string) *ttrpc.Client {
	tb.Helper()
	conn, err := net.Dial("unix", sock)
	check(tb, err)
	return ttrpc.NewClient(conn)
}

// live has the pod live up to its last call: calls, posts and what the agent sends, in
// the order and, by the number of them, at the pace in which they came.
func (r *replay) live() {
	r.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bodies, frames := r.pod.Bodies, r.pod.Frames
	for i, c := range r.pod.Calls {
		if c.Method == "Shutdown" {
			continue // the pod lives on
		}
		check(r.tb, r.calls.Call(ctx, "containerd.task.v2.Task", c.Method, request(c.ContainerID, c.ExecID), new(emptypb.Empty)))
		left := len(r.pod.Calls) - i
		for n := len(bodies) / left; n > 0; n-- {
			check(r.tb, r.inner.Call(ctx, post.Service, post.Method, wrapperspb.Bytes(bodies[0]), new(emptypb.Empty)))
			bodies = bodies[1:]
		}
		n := len(frames) / left
		_ = r.agent.SetWriteDeadline(time.Now().Add(patience))
		_, err := r.agent.Write(frames[:n])
		check(r.tb, err)
		frames = frames[n:]
		time.Sleep(20 * time.Millisecond)
	}
}

// request has the ids where the messages of the task service have them.
func request(container, exec string) *wrapperspb.StringValue {
	r := wrapperspb.String(container)
	if exec != "" {
		r.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), exec))
	}
	return r
}

// end ends the pod, and returns when the relay is gone.
func (r *replay) end() {
	if r.agent != nil {
		r.agent.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = r.inner.Call(ctx, "containerd.task.v2.Task", "Shutdown", request(r.pod.Sandbox, ""), new(emptypb.Empty))
	r.inner.Close()
	r.calls.Close()
	await(r.tb, "the relay has ended", func() bool { return !exists(r.relay) })
}

// dials reports whether somebody listens at a socket.
func dials(sock string) bool {
	conn, err := net.Dial("unix", sock)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func exists(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// processOf returns the process whose arguments begin with the program and have the id,
// and end with action.
func processOf(tb testing.TB, program, action, id string) int {
	tb.Helper()
	pids := testkit.Processes(func(args []string) bool {
		return args[0] == program && args[len(args)-1] == action && testkit.With(id)(args)
	})
	if len(pids) == 0 {
		tb.Fatalf("no process of %s %s", program, action)
	}
	return pids[0]
}

func await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Errorf("does not happen: %s", what)
			return
		}
	}
}

var check = testkit.Check
