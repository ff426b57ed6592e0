package vmshim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestFaultsKilledBesideVMs kills relays, and the guard, of pods with a VM: they stand
// between containerd and the runtime, between the runtime and the agent, and at the end
// of the agent's stream of spans.
func TestFaultsKilledBesideVMs(t *testing.T) {
	product, err := traced.Bin()
	check(t, err)
	dir := t.TempDir()
	check(t, os.Symlink(filepath.Join(product, "containerd-shim-traced-v2"), filepath.Join(dir, "containerd-shim-vmrunc-traced-v2")))
	in := traced.Start(t, traced.Options{
		Options: rig.Options{
			Path: []string{bin, dir},
			Env:  []string{"VMSHIM_AGENT=" + agent.Program(t), "VMSHIM_AGENT_FLAGS=--flush-ms 200", fmt.Sprint("VMSHIM_OUTPUT=", outputSize)},
		},
		Config: "[agent]\nreceive = 'on'\ninject = 'on'\n",
	})
	l := faults.Start(t, in, faults.Options{Pods: 2, Execs: 2, Runtime: "io.containerd.vmrunc-traced.v2"})
	k := traced.NewKiller(in.Rig)
	n := faults.Kills() / 4
	k.Kill(t, n, traced.Relay, traced.Relay, traced.Guard)
	lost := l.End()
	eventually(t, "the shims to end", func() bool { return traced.ShimsEnded(in.Rig) })
	row := faults.Account(t, l, lost, nil)
	for _, line := range regexp.MustCompile(`(?m)^.*vmshim: .*$`).FindAllString(in.Rig.Log(), 20) {
		if strings.Contains(line, "directory not empty") {
			// The runtime removes the VMM's directory while a relay takes a place in it.
			t.Log(line)
			continue
		}
		t.Errorf("the runtime says: %s", line)
	}
	if row.CallsFailed > 0 {
		t.Errorf("%d of %d calls failed", row.CallsFailed, row.Calls)
	}
	t.Logf("killed %v", k.Killed)
	if faults.Whole() {
		reliability.Row(t, reliability.Fault{Area: "Under load", Fault: fmt.Sprintf("killed at random moments, beside VMs: relays, and after every second one the guard, %d times", n), Load: row})
	}
}
