package traced_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// Without a guard, a relay that is killed takes its containers with it, as a killed shim
// does: the rest is that nothing is left behind, and that the trace says what happened.
func TestKilledRelay(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		in.WithoutGuard(t)
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		// At once: the first spans are on their way to the journal.
		check(t, unix.Kill(relays(r)[0].PID, unix.SIGKILL))
		until(t, "containerd to notice", func() bool {
			return !strings.Contains(r.Ctr("tasks", "list").Stdout, "RUNNING")
		})
		r.Ctr("tasks", "delete", "--force", "c1") // 1.7 has forgotten the task by now
		check(t, r.Ctr("containers", "delete", "c1").Check())
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		settle(t, in)
		until(t, "the end of the trace", func() bool { return len(otlprecv.Named(spans(t, in), "shim delete")) == 1 })
		found := spans(t, in)
		root := otlprecv.Named(found, "sandbox start")
		// One that was killed before it noted that the root is in the journal leaves it to
		// delete as well: the same span again.
		root = slices.CompactFunc(root, func(a, b otlprecv.Span) bool { return bytes.Equal(a.GetSpanId(), b.GetSpanId()) })
		if len(root) != 1 || root[0].GetStatus().GetMessage() != "" {
			t.Errorf("root spans %v, want one of a sandbox that started", root)
		}
		for _, s := range found {
			if len(root) > 0 && s.TraceID != root[0].TraceID {
				t.Errorf("span %s is in another trace", s.Name)
			}
		}
	})
}

// Without a guard, the root of a sandbox whose relay dies before a task runs is left to
// delete.
func TestRelayKilledBeforeTheTaskRuns(t *testing.T) {
	// A runc that is not done with create until the relay is gone.
	dir := t.TempDir()
	runc := fmt.Sprintf(`#!/bin/sh
for id; do :; done # the last argument
case " $* " in *" create "*)
	for p in /proc/[0-9]*; do
		case "$(tr '\0' ' ' < $p/cmdline 2>/dev/null)" in *"-id $id "*" relay ") kill -9 ${p#/proc/};; esac
	done;;
esac
exec %s/runc "$@"
`, tool(t, toolset.Runc))
	check(t, os.WriteFile(filepath.Join(dir, "runc"), []byte(runc), 0o755))
	opts := traced.Options{Options: rig.Options{Path: []string{dir}}}
	each(t, opts, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		in.WithoutGuard(t)
		id := "c" + r.Name // no other rig's
		res := r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, id, "true")
		if res.Code == 0 {
			t.Fatal("the container ran though its relay was killed")
		}
		settle(t, in)
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		until(t, "the root", func() bool { return roots(t, in) > 0 })
		root := otlprecv.Named(spans(t, in), "sandbox start")
		if len(root) != 1 || !strings.Contains(root[0].GetStatus().GetMessage(), "the relay died") {
			t.Errorf("root spans %v, want one that says that the relay died", root)
		}
	})
}

// Without a guard, a pod whose relay is killed goes with all its containers.
func TestKilledRelayOfAPod(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		in.WithoutGuard(t)
		pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
		check(t, err)
		for _, name := range []string{"a", "b"} {
			_, err := pod.Run(rig.Container{Name: name})
			check(t, err)
		}
		check(t, unix.Kill(relays(r)[0].PID, unix.SIGKILL))
		until(t, "containerd to notice", func() bool {
			return !strings.Contains(r.Crictl("ps").Stdout, "Running")
		})
		// containerd 1.7 may take a second try to see the end of the sandbox itself.
		until(t, "containerd to let the pod be removed", func() bool { return pod.Remove() == nil })
		until(t, "everything to be gone", func() bool { return len(r.Processes()) == 0 })
		settle(t, in)
		if n := roots(t, in); n != 1 {
			t.Errorf("%d root spans, want 1", n)
		}
	})
}
