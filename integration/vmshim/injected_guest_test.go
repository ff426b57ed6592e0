package vmshim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/vm"
)

// TestInjectedGuest is a container of containerd's whose agent is in a real VM: each of
// the agent's spans comes out of it under the request that it is for.
func TestInjectedGuest(t *testing.T) {
	dir := t.TempDir()
	pattern := filepath.Join(dir, "{sandbox}", "vm.sock")
	in, runtime := wrapped(t, fmt.Sprintf("inject = 'on'\n[agent.sockets]\ntest = %q\n", pattern), "VMSHIM_MODE=external", "VMSHIM_SOCKET="+pattern, "VMSHIM_BOOT=1s")
	const id = "c1"
	socket := filepath.Join(dir, id, "vm.sock")
	program := agent.Program(t)
	check(t, os.Mkdir(filepath.Dir(socket), 0o700))
	// The VM, which is not its shim's, lives on when the pod ends, and a pod on a quick machine
	// ends 200 ms after its first request: the agent's first batch is to come before that.
	vm.StartHybrid(t, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/agent": program},
		Services: []string{"agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 20"},
	})
	res := in.Rig.CtrHearing([]string{"hi"}, "run", "--rm", "--runtime", runtime.Shim(), image.Busybox, id, "sh", "-c", "echo hi"+rig.Hear)
	check(t, res.Check())
	if res.Out() != "hi" {
		t.Errorf("it printed %q, want hi", res.Out())
	}
	spans := waitSpans(t, in, id, ended...)
	byID := checkTree(t, spans)
	checkRequests(t, spans, byID, map[string]int{"CreateSandbox": 1, "CreateContainer": 1, "StartContainer": 1, "RemoveContainer": 1, "DestroySandbox": 1})
	for name := range cause {
		for _, s := range otlprecv.Named(spans, name) {
			if request := byID[s.ParentID]; snake(request.Name) != name {
				t.Errorf("%s is under %q", name, request.Name)
			}
		}
	}
	checkSecrets(t, in)
}
