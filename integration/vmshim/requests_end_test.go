package vmshim_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	agentgrpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestRequestsEndAsDirect: whatever ends a VM while requests are under way, the runtime
// is told what it would be told without a relay, also when it dials again.
func TestRequestsEndAsDirect(t *testing.T) {
	for name, end := range map[string]func(*agentVM){
		"agent killed":  func(v *agentVM) { v.agent.Process.Kill(); v.agent.Wait() },
		"VMM ends":      func(v *agentVM) { v.close() },
		"VM comes down": func(v *agentVM) { v.close(); v.agent.Process.Kill(); v.agent.Wait() },
	} {
		t.Run(name, func(t *testing.T) {
			direct, _ := startVM(t, false)
			told := inFlight(t, direct, func() { end(direct) })
			again := dialAgain(direct.socket)
			relayed, _ := startVM(t, true)
			if got := inFlight(t, relayed, func() { end(relayed) }); got != told {
				t.Errorf("relayed, the runtime is told %s; direct %s", got, told)
			}
			// The relay finds out by an attempt that fails.
			eventually(t, "a new connection ends so: "+again, func() bool { return dialAgain(relayed.socket) == again })
		})
	}
}

// inFlight has requests wait for what never comes until end has been called, and returns
// what a runtime is told then.
func inFlight(t *testing.T, v *agentVM, end func()) string {
	t.Helper()
	a, ctx := v.connect(t), t.Context()
	_, err := a.CreateContainer(ctx, &agentgrpc.CreateContainerRequest{ContainerId: "c1", ExecId: "c1", OCI: &agentgrpc.Spec{}})
	check(t, err)
	var told [3]error
	var waiting sync.WaitGroup
	for i, wait := range []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := a.WaitProcess(ctx, &agentgrpc.WaitProcessRequest{ContainerId: "c1", ExecId: "c1"})
			return err
		},
		func(ctx context.Context) error {
			_, err := a.ReadStderr(ctx, &agentgrpc.ReadStreamRequest{ContainerId: "c1", ExecId: "c1", Len: 1})
			return err
		},
		func(ctx context.Context) error {
			_, err := a.GetOOMEvent(ctx, &agentgrpc.GetOOMEventRequest{})
			return err
		},
	} {
		waiting.Go(func() { told[i] = wait(ctx) })
	}
	// The agent answers in any order: one that is answered shows that the others wait.
	_, err = a.GetGuestDetails(ctx, &agentgrpc.GuestDetailsRequest{})
	check(t, err)
	end()
	waiting.Wait()
	_, err = a.GetGuestDetails(ctx, &agentgrpc.GuestDetailsRequest{})
	return fmt.Sprintf("%v, then %v", told, err)
}

// dialAgain tries to reach the agent as a runtime does, and returns why it cannot.
func dialAgain(socket string) string {
	conn, err := net.Dial("unix", socket)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	fmt.Fprint(conn, "CONNECT 1024\n")
	var answer [64]byte
	n, err := conn.Read(answer[:])
	if n > 0 {
		return ""
	}
	return err.Error()
}

// TestRelayKilled: without a guard, a relay that is killed with requests under way takes its pod with it,
// as a shim that is killed does, and leaves nothing of the VM's behind.
func TestRelayKilled(t *testing.T) {
	in, runtime := wrapped(t, "inject = 'on'\n[runtime.vmrunc.agent]\nreceive = 'off'\n")
	in.WithoutGuard(t)
	p, err := in.Rig.RunPod(rig.Pod{Name: "p", Runtime: runtime.Name})
	check(t, err)
	_, err = p.Run(rig.Container{Name: "app"})
	check(t, err)
	vms := filepath.Join(in.Rig.Dir, "run/vc/vm")
	entries, err := os.ReadDir(filepath.Join(vms, p.ID))
	check(t, err)
	if !strings.Contains(fmt.Sprint(entries), ".shimtrace-") {
		t.Fatalf("requests are not relayed: %v", entries)
	}
	for _, proc := range traced.Find(in.Rig, traced.Relay) {
		check(t, syscall.Kill(proc.PID, syscall.SIGKILL))
	}
	eventually(t, "the VM is gone", func() bool {
		left, err := os.ReadDir(vms)
		return err == nil && len(left) == 0
	})
	eventually(t, "containerd has noticed, and the pod can be removed", func() bool { return p.Remove() == nil })
	eventually(t, "its processes are gone", func() bool {
		for _, proc := range in.Rig.Processes() {
			if !strings.Contains(proc.Args[0], "containerd") || strings.Contains(proc.Args[0], "shim") {
				return false
			}
		}
		return true
	})
}
