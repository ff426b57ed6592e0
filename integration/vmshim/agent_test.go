package vmshim_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/client"
	agentgrpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"

	"github.com/shimtrace/shimtrace/integration/rust/agent"
	wire "github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// startAgent starts the agent alone, with Kata's client connected to it, and
// returns the lines of its log. A test ends with it by destroying the sandbox.
func startAgent(t *testing.T, flags ...string) (agentgrpc.AgentServiceService, <-chan string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	cmd := exec.Command(agent.Program(t), append([]string{"--listen", "unix://" + socket}, flags...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	check(t, err)
	check(t, cmd.Start())
	log := make(chan string, 1000)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log <- lines.Text()
		}
		close(log)
	}()
	c, err := client.NewAgentClient(t.Context(), "mock://"+socket, 30)
	t.Cleanup(func() {
		if c != nil {
			c.Close()
		}
		cmd.Process.Signal(syscall.SIGTERM)
		for range log {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the agent ended: %v", err)
		}
	})
	check(t, err)
	return c.AgentServiceClient, log
}

// The agent runs where there is nothing but itself, as in a guest.
func TestAgentNeedsNoLibraries(t *testing.T) {
	root := t.TempDir()
	program, err := os.ReadFile(agent.Program(t))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(root, "agent"), program, 0o755))
	cmd := exec.Command("/agent", "--nonsense", "x")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "unknown flag --nonsense") {
		t.Errorf("it says %q, %v", out, err)
	}
}

// A process can write as much as tests of throughput need, until its end.
func TestAgentOutput(t *testing.T) {
	const size = 8 << 20
	a, _ := startAgent(t, "--stdout-bytes", "8388608")
	ctx := t.Context()
	_, err := a.CreateContainer(ctx, &agentgrpc.CreateContainerRequest{ContainerId: "c1", ExecId: "c1", OCI: &agentgrpc.Spec{}})
	check(t, err)
	total := 0
	for total < size {
		out, err := a.ReadStdout(ctx, &agentgrpc.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 1 << 20})
		check(t, err)
		checkOutput(t, total, out.Data)
		total += len(out.Data)
	}
	_, err = a.WriteStdin(ctx, &agentgrpc.WriteStreamRequest{ContainerId: "c1", ExecId: "c1", Data: []byte("exit 5\n")})
	check(t, err)
	if out, err := a.ReadStdout(ctx, &agentgrpc.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 1}); err == nil {
		t.Errorf("%d bytes after the end", len(out.Data))
	}
	exit, err := a.WaitProcess(ctx, &agentgrpc.WaitProcessRequest{ContainerId: "c1", ExecId: "c1"})
	check(t, err)
	if total != size || exit.Status != 5 {
		t.Errorf("%d bytes and exit status %d, want %d and 5", total, exit.Status, size)
	}
}

// checkOutput holds a piece of the agent's output to what it is, from that byte on.
func checkOutput(t testing.TB, from int, piece []byte) {
	t.Helper()
	for i, b := range piece {
		if n := from + i; b != byte(n^n>>8^n>>16) {
			t.Fatalf("byte %d of the output is %#x", n, b)
		}
	}
}

// A batch that finds no host is lost and the next one connects; a connection that
// the host closes is the agent's last.
func TestAgentConnectsOnce(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "host.sock")
	a, log := startAgent(t, "--export", "unix://"+socket, "--flush-ms", "50")
	lost := func() {
		t.Helper()
		for {
			select {
			case line, ok := <-log:
				if !ok {
					t.Fatal("the agent has ended")
				}
				if strings.HasPrefix(line, "agent: export of ") {
					return
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the agent has lost no batch")
			}
		}
	}
	ctx := t.Context()
	// It has one span, so no later batch holds more of it.
	_, err := a.GetGuestDetails(ctx, &agentgrpc.GuestDetailsRequest{})
	check(t, err)
	lost()

	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	check(t, err)
	defer listener.Close()
	_, err = a.CreateSandbox(ctx, &agentgrpc.CreateSandboxRequest{SandboxId: "s1"})
	check(t, err)
	conn, err := listener.Accept()
	check(t, err)
	frames := wire.NewReader(conn, wire.Options{})
	var span span.Span
	for span.Name != "create_sandbox" {
		payload, err := frames.Next()
		check(t, err)
		check(t, wire.NewDecoder(wire.Options{}).Decode(payload, &span))
		if span.Name == "get_guest_details" {
			t.Error("a span of the batch that found no host has arrived")
		}
	}

	conn.Close()
	for range 2 {
		_, err = a.GetGuestDetails(ctx, &agentgrpc.GuestDetailsRequest{})
		check(t, err)
		lost()
	}
	check(t, listener.SetDeadline(time.Now()))
	if conn, err := listener.Accept(); err == nil {
		conn.Close()
		t.Error("the agent connected again")
	}
}

// DestroySandbox ends the agent, after it has sent all it has.
func TestAgentEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "host.sock")
	listener, err := net.Listen("unix", socket)
	check(t, err)
	defer listener.Close()
	a, log := startAgent(t, "--export", "unix://"+socket) // the flush that comes by itself is far away
	_, err = a.DestroySandbox(t.Context(), &agentgrpc.DestroySandboxRequest{})
	if !errors.Is(err, ttrpc.ErrClosed) { // the client can see the agent's end before its answer
		check(t, err)
	}
	conn, err := listener.Accept()
	check(t, err)
	defer conn.Close()
	reader, decoder := wire.NewReader(conn, wire.Options{}), wire.NewDecoder(wire.Options{})
	var names []string
	for {
		payload, err := reader.Next()
		if err == io.EOF {
			break
		}
		check(t, err)
		var span span.Span
		check(t, decoder.Decode(payload, &span))
		names = append(names, span.Name)
	}
	if got := strings.Join(names, " "); !strings.HasPrefix(got, "destroy destroy_sandbox") || !strings.HasSuffix(got, "start_sandbox root-span") {
		t.Errorf("it sent %s", got)
	}
	for line := range log {
		t.Errorf("it complains: %s", line)
	}
}
