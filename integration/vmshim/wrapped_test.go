package vmshim_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// Wrapped by shimtrace the shim does what it does bare.
func TestWrapped(t *testing.T) {
	product, err := traced.Bin()
	check(t, err)
	link := filepath.Join(t.TempDir(), "containerd-shim-vmrunc-traced-v2")
	check(t, os.Symlink(filepath.Join(product, "containerd-shim-traced-v2"), link))
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	check(t, os.WriteFile(config, fmt.Appendf(nil, "%s[journal]\ndir = %q\n", traced.Patient, filepath.Join(dir, "journal")), 0o600))

	runtime := rig.Runtime{Name: "vmrunc-traced", Type: rig.Runc.Type, Path: link}
	r := rig.Start(t, rig.Options{
		Path:     []string{bin, filepath.Dir(link)}, // nerdctl's runtimes are types
		Env:      []string{"VMSHIM_AGENT=" + agent.Program(t), "VMSHIM_AGENT_FLAGS=--flush-ms 200", "SHIMTRACE_CONFIG=" + config},
		Runtimes: []rig.Runtime{runtime},
	})
	res := r.CtrHearing([]string{"hi"}, "run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "sh", "-c", "echo hi"+rig.Hear+"; exit 3")
	if res.Out() != "hi" || res.Code != 3 {
		t.Errorf("ctr run printed %q and exited with %d, want hi and 3: %v", res.Out(), res.Code, res.Check())
	}
	res = r.Talk(rig.Talk{Hear: []string{"hi"}}, "nerdctl", "run", "-i", "--rm", "--net", "none", "--runtime", "io.containerd.vmrunc-traced.v2", image.Busybox, "sh", "-c", "echo hi"+rig.Hear)
	if res.Out() != "hi" {
		t.Errorf("nerdctl run printed %q: %v", res.Out(), res.Check())
	}
	pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: runtime.Name})
	check(t, err)
	id, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	check(t, r.Crictl("exec", "-s", id, "true").Check())
	if entries, err := os.ReadDir(filepath.Join(r.Dir, "run/vc/vm", pod.ID)); err != nil || len(entries) == 0 {
		t.Errorf("the pod's VM has no socket: %v", err)
	}
	check(t, pod.Remove())
}
