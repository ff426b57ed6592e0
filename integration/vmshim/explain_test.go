package vmshim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/names"
)

// explained explains the start of a sandbox whose spans have arrived.
func explained(t *testing.T, in *traced.Install, sandbox string) *explain.Explanation {
	t.Helper()
	e, err := in.Explain(sandbox)
	check(t, err)
	if e == nil {
		t.Fatalf("no story of %s", sandbox)
	}
	t.Logf("%s", e)
	return e
}

// TestExplainLateAgent: the agent listens three seconds after the VMM.
func TestExplainLateAgent(t *testing.T) {
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	in, runtime := wrapped(t, "inject = 'on'\n[jaeger]\nreceive = 'on'\n[export]\nshipper = '"+shipper+"'\n",
		"VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://"+runtimesEndpoint+"/api/traces", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --boot-ms 3000")
	check(t, in.Rig.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "true").Check())
	waitSpans(t, in, "c1", "root-span", "shim delete", "rootSpan")
	wantBoot(t, in)
	e := explained(t, in, "c1")
	seeded.Named(t, seeded.Cause{ID: "late-agent", How: "an agent that answers three seconds after the VMM is up", Parts: seeded.VM, Also: []string{seeded.Pressed}}, e)
}

// wantBoot checks that the VM's boot is a span below the call that made the VM, with the
// guest's boot and the connection to the agent in it, and that attempts are counted.
func wantBoot(t *testing.T, in *traced.Install) {
	t.Helper()
	spans, err := in.Spans()
	check(t, err)
	boots := otlprecv.Named(spans, names.VMBoot)
	if len(boots) != 1 {
		t.Fatalf("%d boots of one VM", len(boots))
	}
	boot := boots[0]
	if n, _ := boot.Attrs[names.VMAttempts].(int64); n < 2 {
		t.Errorf("%d attempts to connect to an agent that listens after three seconds", n)
	}
	for _, part := range []string{names.GuestBoot, names.AgentConnect} {
		found := otlprecv.Named(spans, part)
		if len(found) != 1 || found[0].ParentID != boot.ID || found[0].Start().Before(boot.Start()) || found[0].End().After(boot.End()) {
			t.Errorf("%s within the boot: %v", part, found)
		}
	}
	if guest := otlprecv.Named(spans, names.GuestBoot); len(guest) == 1 && guest[0].End().Sub(guest[0].Start()) < 2*time.Second {
		t.Errorf("the guest boots in %s, though its agent comes after three seconds", guest[0].End().Sub(guest[0].Start()))
	}
	for _, s := range spans {
		if s.ID == boot.ParentID && strings.HasSuffix(s.Name, ".Task/Create") {
			return
		}
	}
	t.Errorf("the boot is not below the call that made the VM, but below %s", boot.ParentID)
}

// TestExplainGuest: a start in an emulated guest has an owner for all of its time.
func TestExplainGuest(t *testing.T) {
	dir := t.TempDir()
	pattern := filepath.Join(dir, "{sandbox}", "vm.sock")
	in, runtime := wrapped(t, fmt.Sprintf("inject = 'on'\n[agent.sockets]\ntest = %q\n", pattern), "VMSHIM_MODE=external", "VMSHIM_SOCKET="+pattern, "VMSHIM_BOOT=1s")
	const id = "c1"
	socket := filepath.Join(dir, id, "vm.sock")
	check(t, os.Mkdir(filepath.Dir(socket), 0o700))
	vm.StartHybrid(t, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/agent": agent.Program(t)},
		Services: []string{"agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 20"},
	})
	check(t, in.Rig.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, id, "echo", "hi").Check())
	waitSpans(t, in, id, "sandbox start", "create_container", "start_container", "shim delete")
	e := explained(t, in, id)
	seeded.Covered(t, "VM-shaped shim, an emulated guest, requests relayed", e)
}
