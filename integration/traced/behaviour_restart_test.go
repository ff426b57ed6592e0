package traced_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// Containers and their traces outlive containerd, however it ends.
func TestContainersOutliveContainerd(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1",
			"sh", "-c", "trap 'exit 42' USR1; while :; do sleep 0.1; done").Check())
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		a, err := pod.Run(rig.Container{Name: "a"})
		check(t, err)
		until(t, "the guard, which a relay starts", func() bool { return len(traced.Find(r, traced.Guard)) == 1 })
		before := r.Shims()
		if len(relays(r)) != 2 || len(inners(r)) != 2 {
			t.Fatalf("shims of a container and a pod: %v", before)
		}

		for i, end := range []func() error{r.Kill, r.Stop} {
			check(t, end())
			check(t, r.Restart(t.Context()))
			res := r.CtrHearing([]string{"alive"}, "tasks", "exec", "--exec-id", fmt.Sprint("e", i), "c1", "sh", "-c", "echo alive"+rig.Hear)
			check(t, res.Check())
			if res.Out() != "alive" {
				t.Errorf("exec after restart %d printed %q", i, res.Out())
			}
			check(t, r.Crictl("exec", "--sync", a, "true").Check())
			if after := r.Shims(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("shims %v before restart %d, %v after", before, i, after)
			}
		}

		// What starts after a restart comes to the pod's relay of before.
		b, err := pod.Run(rig.Container{Name: "b", Command: []string{"sh", "-c", "sleep 0.3; exit 9"}})
		check(t, err)
		until(t, "an exit after a restart", func() bool {
			return r.Crictl("inspect", "--output", "go-template", "--template", "{{.status.exitCode}}", b).Out() == "9"
		})
		check(t, pod.Remove())

		check(t, r.Ctr("tasks", "kill", "--signal", "SIGUSR1", "c1").Check())
		until(t, "an exit after a restart", func() bool {
			fields := r.Ctr("tasks", "list").Fields()
			return len(fields) > 0 && fields[len(fields)-1] == "STOPPED"
		})
		if res := r.Ctr("tasks", "delete", "c1"); !strings.Contains(res.Stderr, "exit code 42") {
			t.Errorf("no exit status 42 after restarts: %v, %s", res.Check(), res.Stderr)
		}
		check(t, r.Ctr("containers", "delete", "c1").Check())
		settle(t, in)
		if n := roots(t, in); n != 2 {
			t.Errorf("%d sandboxes traced, want 2", n)
		}
	})
}

// A container that ended while containerd was away leaves as much as a bare one.
func TestExitWhileContainerdIsAway(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		sessions := map[string]*session{"bare": newSession(t, in, false), "wrapped": newSession(t, in, true)}
		for id, s := range sessions {
			s.ids = append(s.ids, id, "<id>")
			check(t, r.Ctr("run", "--detach", "--runtime", s.rt.Shim(), image.Busybox, id, "sh", "-c", "sleep 1; exit 42").Check())
		}
		check(t, r.Kill())
		until(t, "the containers to end", func() bool { return len(r.Processes()) == len(r.Shims()) })
		check(t, r.Restart(t.Context()))
		for id, s := range sessions {
			s.ctr("tasks", "delete", id)
			s.ctr("containers", "delete", id)
		}
		if d := diff(sessions["bare"].transcript(), sessions["wrapped"].transcript()); d != "" {
			t.Errorf("wrapped differs from bare: %s", d)
		}
		settle(t, in)
	})
}
