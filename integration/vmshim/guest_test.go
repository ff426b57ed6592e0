package vmshim_test

import (
	"net"
	"path/filepath"
	"slices"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/vm"
)

// The VM can be a real one: the agent in an emulated guest, reached through its
// VSOCK, and its spans coming out of it.
func TestGuest(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "vm.sock")
	r, runtime, host := start(t, "VMSHIM_MODE=external", "VMSHIM_SOCKET="+socket)
	listener, err := net.Listen("unix", socket+"_10240")
	check(t, err)
	t.Cleanup(func() { listener.Close() })
	host.served.Go(func() { host.accept(listener, "c1") })
	vm.StartHybrid(t, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/agent": agent.Program(t)},
		Services: []string{"agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 20"},
	})
	res := r.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "echo", "hi")
	check(t, res.Check())
	got := host.wait("c1")
	want := []string{
		"create_sandbox", "get_guest_details", "create_container c1", "start_container c1",
		"wait_process c1", "remove_container c1", "remove_stale_virtiofs_share_mounts", "destroy_sandbox",
	}
	if calls := slices.DeleteFunc(got.calls(), func(c string) bool { return c == "close_stdin c1" }); !slices.Equal(calls, want) {
		t.Errorf("the agent was asked %q, want %q", calls, want)
	}
	checkShape(t, got)
}
