package traced_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// execing runs a command in a container that takes a while, and returns what checks that
// it ended as it should.
func execing(t *testing.T, r *rig.Rig, id, exec string) (ended func()) {
	t.Helper()
	done := make(chan rig.Result, 1)
	go func() {
		done <- r.CtrHearing([]string{"alive"}, "tasks", "exec", "--exec-id", exec, id, "sh", "-c", "sleep 2; echo alive"+rig.Hear+"; exit 7")
	}()
	until(t, "the command to run", func() bool { return strings.Contains(r.Ctr("tasks", "ps", id).Stdout, exec) })
	return func() {
		t.Helper()
		if res := <-done; res.Err != nil || res.Code != 7 || res.Out() != "alive" {
			t.Errorf("a command that was running: %q, %d, %v", res.Out(), res.Code, res.Check())
		}
	}
}

// endOf kills and removes a container, and looks at what is left: nothing, and one trace
// with its root.
func endOf(t *testing.T, in *traced.Install, id string) []otlprecv.Span {
	t.Helper()
	r := in.Rig
	check(t, r.Ctr("tasks", "kill", "--signal", "KILL", id).Check())
	until(t, "the container to end", func() bool { return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING") })
	check(t, r.Ctr("tasks", "delete", id).Check())
	check(t, r.Ctr("containers", "delete", id).Check())
	settle(t, in)
	until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
	found := spansOfKilled(t, in)
	root := otlprecv.Named(found, "sandbox start")
	if len(root) != 1 || root[0].GetStatus().GetMessage() != "" {
		t.Errorf("root spans %v, want one of a sandbox that started", root)
	}
	for _, s := range found {
		if len(root) > 0 && s.TraceID != root[0].TraceID {
			t.Errorf("span %s is in another trace", s.Name)
		}
	}
	return found
}

// A relay that is killed costs nothing but some spans: the container lives on, a command
// that runs in it ends as it should, and the trace goes on.
func TestRelayKilledIsFollowed(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		ended := execing(t, r, "c1", "e1")
		for i := range 3 {
			killRelay(t, r)
			check(t, r.Ctr("tasks", "exec", "--exec-id", "e2", "c1", "true").Check())
			until(t, "the relay to have written that it went on: its unwritten spans end with it", func() bool {
				return len(otlprecv.Named(spansOfKilled(t, in), names.RelayResumed)) > i
			})
		}
		ended()
		found := endOf(t, in, "c1")
		if n := len(otlprecv.Named(found, names.RelayResumed)); n != 3 {
			t.Errorf("%d spans tell of a relay that went on, want 3", n)
		}
		root := otlprecv.Named(found, "sandbox start")[0]
		correlated := "trace_id=" + root.TraceID + " span_id=" + root.ID
		guards := func() string {
			text, _ := os.ReadFile(filepath.Join(r.Dir, "run/shimtrace/guard.log"))
			return string(text)
		}
		for line, log := range map[string]func() string{"goes on": guards, "this relay goes on for another one": r.Log} {
			until(t, fmt.Sprintf("three lines %q with %s", line, correlated), func() bool {
				n := 0
				for l := range strings.Lines(log()) {
					if strings.Contains(l, line) && strings.Contains(l, correlated) {
						n++
					}
				}
				return n == 3
			})
		}
	})
}

// The guard's death costs nothing, and relays have another one at once; so it does not
// matter if they die a moment later.
func TestGuardKilled(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		ended := execing(t, r, "c1", "e1")
		relay, first := guarded(t, r, func(guard.Status) bool { return true })
		check(t, unix.Kill(first, unix.SIGKILL))
		began := time.Now()
		now, second := guarded(t, r, func(guard.Status) bool { return true })
		t.Logf("guarded again after %v", time.Since(began))
		if second == first || now.PID != relay.PID {
			t.Errorf("relay %d and guard %d were %d and %d", now.PID, second, relay.PID, first)
		}
		killRelay(t, r)
		ended()
		endOf(t, in, "c1")
	})
}

// A pod whose relay is killed goes on with all its containers.
func TestRelayOfAPodKilledIsFollowed(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		killRelay(t, r)
		for _, name := range []string{"a", "b"} {
			_, err := pod.Run(rig.Container{Name: name})
			check(t, err)
			killRelay(t, r)
		}
		if n := strings.Count(r.Crictl("ps").Stdout, "Running"); n != 2 {
			t.Errorf("%d containers run, want 2", n)
		}
		check(t, pod.Remove())
		settle(t, in)
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		if n := len(otlprecv.Named(spansOfKilled(t, in), "sandbox start")); n != 1 {
			t.Errorf("%d root spans, want 1", n)
		}
	})
}

// Relays become the installed program while their containers run, and nobody notices.
func TestUpgrade(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		ended := execing(t, r, "c1", "e1")
		before, _ := guarded(t, r, func(guard.Status) bool { return true })
		check(t, shimtrace(t, in, "upgrade", "--dry-run").Check())
		if now, _ := guarded(t, r, func(guard.Status) bool { return true }); now.PID != before.PID {
			t.Error("a dry run has moved it")
		}
		for range 3 {
			res := shimtrace(t, in, "upgrade")
			check(t, res.Check())
			t.Log(strings.TrimSpace(res.Stdout))
		}
		if now, _ := guarded(t, r, func(guard.Status) bool { return true }); now.PID == before.PID || now.Cause != guard.Upgrade {
			t.Errorf("it is still process %d, for %q", now.PID, now.Cause)
		}
		ended()
		found := endOf(t, in, "c1")
		for _, s := range otlprecv.Named(found, names.RelayResumed) {
			if lost := fmt.Sprint(s.Attrs[names.ResumeLost]); lost != "0" {
				t.Errorf("%s spans are lost", lost)
			}
		}
	})
}

// A relay that is stopped while calls wait is replaced, and the calls are answered.
func TestRelayStopped(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		relay, _ := guarded(t, r, func(guard.Status) bool { return true })
		testkit.Stop(t, relay.PID)
		began := time.Now()
		check(t, r.Ctr("tasks", "exec", "--exec-id", "e1", "c1", "true").Check())
		t.Logf("answered after %v", time.Since(began))
		if now, _ := guarded(t, r, func(guard.Status) bool { return true }); now.PID == relay.PID || now.Cause != guard.Hung {
			t.Errorf("process %d, for %q, goes on", now.PID, now.Cause)
		}
		endOf(t, in, "c1")
	})
}

// If the guard and a relay are killed at once, it is as if a shim were killed: its
// container ends, and nothing is left behind. Other sandboxes go on.
func TestGuardAndRelayKilled(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		relay, pid := guarded(t, r, func(guard.Status) bool { return true })
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c2", "sleep", "1000").Check())
		check(t, unix.Kill(pid, unix.SIGKILL))
		check(t, unix.Kill(relay.PID, unix.SIGKILL))
		until(t, "containerd to notice", func() bool {
			return strings.Count(r.Ctr("tasks", "list").Stdout, "RUNNING") == 1
		})
		r.Ctr("tasks", "delete", "--force", "c1") // 1.7 has forgotten the task by now
		check(t, r.Ctr("containers", "delete", "c1").Check())
		killRelay(t, r) // that of c2, which has another guard
		check(t, r.Ctr("tasks", "exec", "--exec-id", "e1", "c2", "true").Check())
		check(t, r.Ctr("tasks", "kill", "--signal", "KILL", "c2").Check())
		until(t, "the container to end", func() bool { return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING") })
		check(t, r.Ctr("tasks", "delete", "c2").Check())
		check(t, r.Ctr("containers", "delete", "c2").Check())
		settle(t, in)
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		if n := len(otlprecv.Named(spansOfKilled(t, in), "sandbox start")); n != 2 {
			t.Errorf("%d root spans, want 2", n)
		}
	})
}
