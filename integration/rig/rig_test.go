package rig_test

import (
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// each runs a test on every version of containerd.
func each(t *testing.T, test func(t *testing.T, r *rig.Rig)) {
	for _, v := range rig.Versions {
		t.Run(string(v), func(t *testing.T) {
			test(t, rig.Start(t, rig.Options{Version: v}))
		})
	}
}

var check = testkit.Check

func TestClients(t *testing.T) {
	each(t, func(t *testing.T, r *rig.Rig) {
		t.Run("ctr", func(t *testing.T) {
			res := r.CtrHearing([]string{"hi"}, "run", "--rm", "--runtime", rig.Runc.Shim(), image.Busybox, "c1", "sh", "-c", "echo hi"+rig.Hear)
			check(t, res.Check())
			if res.Out() != "hi" {
				t.Errorf("printed %q, want hi", res.Stdout)
			}
			if code := r.Ctr("run", "--rm", image.Busybox, "c2", "sh", "-c", "exit 7").Code; code != 7 {
				t.Errorf("exit status %d, want 7", code)
			}
		})
		t.Run("nerdctl", func(t *testing.T) {
			res := r.Talk(rig.Talk{Hear: []string{"hi"}}, "nerdctl", "run", "-i", "--rm", "--net", "none", image.Busybox, "sh", "-c", "echo hi"+rig.Hear)
			check(t, res.Check())
			if res.Out() != "hi" {
				t.Errorf("printed %q, want hi", res.Stdout)
			}
			res = r.Talk(rig.Talk{Hear: []string{"inet "}}, "nerdctl", "run", "-i", "--rm", "--net", rig.Network, image.Busybox, "sh", "-c", "ip addr show eth0"+rig.Hear)
			check(t, res.Check())
			if !strings.Contains(res.Stdout, "inet 10.78.") {
				t.Errorf("no address of network %s in %q", rig.Network, res.Stdout)
			}
		})
		t.Run("crictl", func(t *testing.T) {
			pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: rig.Runc.Name})
			check(t, err)
			id, err := pod.Run(rig.Container{Name: "c", Env: map[string]string{"GREETING": "hi"}})
			check(t, err)
			for _, args := range [][]string{{"exec", id}, {"exec", "-s", id}} {
				res := r.Crictl(append(args, "sh", "-c", "echo $GREETING")...)
				check(t, res.Check())
				if res.Out() != "hi" {
					t.Errorf("%v printed %q, want hi", args, res.Stdout)
				}
			}
			if n := len(r.Shims()); n != 1 {
				t.Errorf("pod with one container has %d shims, want 1: %v", n, r.Shims())
			}
			check(t, pod.Remove())
		})
	})
}

func TestContainersOutliveContainerd(t *testing.T) {
	each(t, func(t *testing.T, r *rig.Rig) {
		check(t, r.Ctr("run", "--detach", image.Busybox, "c1", "sleep", "1000").Check())
		pod, err := r.RunPod(rig.Pod{Name: "p", HostNetwork: true})
		check(t, err)
		id, err := pod.Run(rig.Container{Name: "c"})
		check(t, err)
		before := r.Shims()
		if len(before) != 2 {
			t.Fatalf("shims of a container and a pod: %v, want 2", before)
		}

		check(t, r.Kill())
		if r.Ctr("version").Check() == nil {
			t.Error("a killed containerd answers")
		}
		check(t, r.Restart(t.Context()))

		res := r.CtrHearing([]string{"alive"}, "tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo alive"+rig.Hear)
		check(t, res.Check())
		if res.Out() != "alive" {
			t.Errorf("exec after restart printed %q, want alive", res.Stdout)
		}
		check(t, r.Crictl("exec", "-s", id, "true").Check())
		after := r.Shims()
		if len(after) != 2 || after[0].PID != before[0].PID || after[1].PID != before[1].PID {
			t.Errorf("shims %v before, %v after", before, after)
		}
	})
}
