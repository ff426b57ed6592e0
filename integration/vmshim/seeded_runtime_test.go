package vmshim_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/disk"
	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// says waits until a shim or an agent of the rig has logged something.
func says(t *testing.T, in *traced.Install, what string) {
	t.Helper()
	testkit.Until(t, what, func() bool { return strings.Contains(in.Rig.Log(), what) })
}

// sandbox starts a pod's sandbox.
func sandbox(t *testing.T, in *traced.Install, runtime rig.Runtime, name string) *cri.Sandbox {
	t.Helper()
	sb, err := in.Rig.CRI().Run(t.Context(), cri.Pod{Name: name, Runtime: runtime.Name, Logs: filepath.Join(in.Rig.Dir, "logs"), Cgroup: "/" + in.Rig.Name})
	check(t, err)
	return sb
}

// TestSeededStateTimeouts: containerd asks for the state of a container whose Create takes
// long, in a shim that serves one call at a time.
func TestSeededStateTimeouts(t *testing.T) {
	seeded.Quiet(t)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_ONE_CALL=on", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --slow CreateContainer=6000")
	ran := make(chan error, 1)
	go func() {
		ran <- in.Rig.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "true").Check()
	}()
	says(t, in, "CreateContainer takes")
	check(t, in.Rig.Ctr("tasks", "list").Check()) // gives up after two seconds
	check(t, in.Rig.Ctr("tasks", "list").Check())
	check(t, <-ran)
	waitSpans(t, in, "c1", "root-span", "shim delete")
	seeded.Named(t, seeded.Cause{ID: "state-timeouts", How: "two State calls during a Create of 6 s", Parts: seeded.VM, Also: []string{seeded.Pressed}}, explained(t, in, "c1"))
}

// TestSeededStats: Stats of one container takes long while another one is created, in a
// shim that serves one call at a time.
func TestSeededStats(t *testing.T) {
	seeded.Quiet(t)
	// containerd's own statistics would hold the lock all the time.
	in, runtime := wrappedIn(t, rig.Options{CRI: "stats_collect_period = '1h'"}, "inject = 'on'\n",
		"VMSHIM_ONE_CALL=on", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --slow StatsContainer=2000")
	sb := sandbox(t, in, runtime, "watched")
	asked := make(chan error, 1)
	go func() { asked <- in.Rig.Ctr("--namespace", "k8s.io", "tasks", "metrics", sb.ID).Check() }()
	says(t, in, "StatsContainer takes")
	_, err := sb.Start(t.Context(), "app", image.Busybox, rig.Sleep...)
	check(t, err)
	check(t, <-asked)
	check(t, in.Rig.CRI().RemovePods(context.WithoutCancel(t.Context())))
	waitSpans(t, in, sb.ID, "root-span", "shim delete")
	seeded.Named(t, seeded.Cause{ID: "stats-lock", How: "Stats that takes the agent 2 s, and a Create meanwhile", Parts: seeded.VM, Also: []string{seeded.Pressed}}, explained(t, in, sb.ID))
}

// TestSeededBackoff: the agent comes soon after an attempt to reach it, and the runtime
// sleeps.
func TestSeededBackoff(t *testing.T) {
	seeded.Quiet(t)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_VMM="+vmm(t), "VMSHIM_BOOT=500ms", "VMSHIM_DIAL_BACKOFF=3s")
	runOnce(t, in, runtime, "c1")
	seeded.Named(t, seeded.Cause{ID: "vsock-backoff", How: "a runtime that sleeps 3 s after an attempt, and an agent that comes after 0.5 s", Parts: seeded.VM, Also: []string{seeded.Pressed}}, explained(t, in, "c1"))
}

// TestSeededColdCache: the VMM's program is not in the page cache, and its disk is slow.
func TestSeededColdCache(t *testing.T) {
	seeded.Quiet(t)
	d := disk.New(t)
	program, err := os.ReadFile(filepath.Join(bin, "containerd-shim-vmrunc-v2"))
	check(t, err)
	const vmm = "cloud-hypervisor"
	check(t, os.WriteFile(filepath.Join(d.Below, vmm), program, 0o755))
	const page = time.Millisecond
	d.SlowReads(page)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_VMM="+filepath.Join(d.Dir, vmm))
	runOnce(t, in, runtime, "c1")
	seeded.Named(t, seeded.Cause{
		ID: "cold-page-cache", How: fmt.Sprintf("a VMM on a disk that takes %s for a page", page), Parts: seeded.VM, Also: []string{"vmm-start", seeded.Pressed},
	}, explained(t, in, "c1"))
}

// TestHealthyVMs: no cause is named on ten pods without a fault, each in a VM.
func TestHealthyVMs(t *testing.T) {
	seeded.Quiet(t)
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_VMM="+vmm(t))
	var pods []*cri.Sandbox
	var waited []time.Duration
	for i := range 11 {
		watched := seeded.Watch(t)
		sb := sandbox(t, in, runtime, fmt.Sprint("web-", i))
		_, err := sb.Start(t.Context(), "app", image.Busybox, rig.Sleep...)
		check(t, err)
		if i > 0 { // the first one finds the page cache cold
			pods, waited = append(pods, sb), append(waited, watched())
		}
	}
	check(t, in.Rig.CRI().RemovePods(t.Context()))
	var all []seeded.Pod
	for i, sb := range pods {
		waitSpans(t, in, sb.ID, "root-span", "shim delete")
		all = append(all, seeded.Pod{Explanation: explained(t, in, sb.ID), Waited: waited[i]})
	}
	seeded.Healthy(t, "ten pods without a fault, by CRI, each in a VM", seeded.VM, all)
}
