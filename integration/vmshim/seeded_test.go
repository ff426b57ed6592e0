package vmshim_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
)

// runOnce runs a container whose VM ends with it.
func runOnce(t *testing.T, in *traced.Install, runtime rig.Runtime, id string) {
	t.Helper()
	check(t, in.Rig.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, id, "true").Check())
	waitSpans(t, in, id, "root-span", "shim delete")
}

// vmm returns the VM-shaped shim's VMM under a real one's name.
func vmm(t *testing.T) string {
	t.Helper()
	link := filepath.Join(t.TempDir(), "cloud-hypervisor")
	check(t, os.Symlink(filepath.Join(bin, "containerd-shim-vmrunc-v2"), link))
	return link
}

// TestSeededInTheVMM: a VMM that is slow, and whose guest is to print a lot.
func TestSeededInTheVMM(t *testing.T) {
	seeded.Quiet(t)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_VMM="+vmm(t), "VMSHIM_VMM_START=2s", "VMSHIM_CMDLINE=agent.log=debug agent.debug_console")
	runOnce(t, in, runtime, "c1")
	e := explained(t, in, "c1")
	seeded.Named(t, seeded.Cause{ID: "vmm-start", How: "a VMM that binds its socket after two seconds", Parts: seeded.VM, Also: []string{"guest-debug", seeded.Pressed}}, e)
	seeded.Named(t, seeded.Cause{ID: "guest-debug", How: "agent.log=debug and agent.debug_console in the VMM's command line", Parts: seeded.VM, Also: []string{"vmm-start", seeded.Pressed}}, e)
}

// TestSeededInTheAgent: a policy that is slow to set, a shared directory that is slow to
// mount, and a span that gets lost.
func TestSeededInTheAgent(t *testing.T) {
	seeded.Quiet(t)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_POLICY=on",
		"VMSHIM_AGENT_FLAGS=--flush-ms 200 --slow SetPolicy=1500 --virtiofs-ms 1500 --lose create_container")
	runOnce(t, in, runtime, "c1")
	e := explained(t, in, "c1")
	all := []string{"agent-policy", "slow-virtiofs", "lost-spans", seeded.Pressed}
	for id, how := range map[string]string{
		"agent-policy":  "a policy that takes the agent 1.5 s to set",
		"slow-virtiofs": "a shared directory that takes the agent 1.5 s to mount",
		"lost-spans":    "an agent's span that it never sends, although it sends one below it",
	} {
		seeded.Named(t, seeded.Cause{ID: id, How: how, Parts: seeded.VM, Also: all}, e)
	}
}
