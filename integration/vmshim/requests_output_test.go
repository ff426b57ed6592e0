package vmshim_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/client"
	agentgrpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"

	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/vmshim"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// outputSize is what a process of the tests' VMs writes.
const outputSize = 8 << 20

// An agentVM is an agent behind a hybrid socket, as a runtime finds it.
type agentVM struct {
	socket string
	agent  *exec.Cmd
	close  func() // the VMM's end
}

// startVM starts one whose processes write outputSize bytes each, and a relay in front of
// its socket if that is asked for.
func startVM(t testing.TB, relayed bool) (*agentVM, *requestRelay) {
	t.Helper()
	dir := t.TempDir()
	v := &agentVM{socket: filepath.Join(dir, "pod", "vm.sock")}
	check(t, os.Mkdir(filepath.Dir(v.socket), 0o700))
	inside := filepath.Join(dir, "agent.sock")
	// It comes under its name as one that is known.
	bound := filepath.Join(dir, "bound.sock")
	l, err := net.Listen("unix", bound)
	check(t, err)
	vmm, err := os.Lstat(bound)
	check(t, err)
	check(t, os.Rename(bound, v.socket))
	v.close = vmshim.ServeHybrid(l, map[uint32]string{1024: inside})
	var relay *requestRelay
	if relayed {
		relay = startRelay(t, "pod", []listen.Pattern{{VMM: "test", Path: filepath.Join(dir, "{sandbox}", "vm.sock")}})
		eventually(t, "the relay has the place of the VMM's socket", func() bool {
			now, err := os.Lstat(v.socket)
			return err == nil && !os.SameFile(now, vmm)
		})
	}
	v.agent = exec.Command(agent.Program(t), "--listen", "unix://"+inside, "--stdout-bytes", fmt.Sprint(outputSize))
	v.agent.Stderr = os.Stderr
	v.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, v.agent.Start())
	t.Cleanup(func() {
		v.close()
		v.agent.Process.Kill()
		v.agent.Wait()
	})
	return v, relay
}

// connect is Kata's client at the agent.
func (v *agentVM) connect(t testing.TB) agentgrpc.AgentServiceService {
	t.Helper()
	c, err := client.NewAgentClient(t.Context(), "hvsock://"+v.socket+":1024", 60)
	check(t, err)
	t.Cleanup(func() { c.Close() })
	return c.AgentServiceClient
}

// readOutput makes a container and reads all that its process writes, as much at a time
// as the Go runtime does.
func readOutput(t testing.TB, a agentgrpc.AgentServiceService, container string) {
	t.Helper()
	ctx := t.Context()
	_, err := a.CreateContainer(ctx, &agentgrpc.CreateContainerRequest{ContainerId: container, ExecId: container, OCI: &agentgrpc.Spec{}})
	check(t, err)
	for n := 0; n < outputSize; {
		out, err := a.ReadStdout(ctx, &agentgrpc.ReadStreamRequest{ContainerId: container, ExecId: container, Len: 32 << 10})
		check(t, err)
		if len(out.Data) == 0 {
			t.Fatalf("no output after %d bytes", n)
		}
		checkOutput(t, n, out.Data)
		n += len(out.Data)
	}
}

// TestOutputRelayed: what a process writes arrives as it was written.
func TestOutputRelayed(t *testing.T) {
	v, relay := startVM(t, true)
	a := v.connect(t)
	readOutput(t, a, "c1")
	if c := relay.interposer.Counts(); c.Relayed != 1 {
		t.Errorf("%+v, want 1 relayed", c)
	}
}

// BenchmarkOutput reads what processes write, 32 KiB at a time, with the relay between
// and without.
func BenchmarkOutput(b *testing.B) {
	for _, way := range []string{"direct", "relayed"} {
		b.Run(way, func(b *testing.B) {
			v, _ := startVM(b, way == "relayed")
			a := v.connect(b)
			b.SetBytes(outputSize)
			n := 0
			for b.Loop() {
				readOutput(b, a, fmt.Sprint("c", n))
				n++
			}
		})
	}
}
