package traced_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// A relay that is killed takes its containers with it, as a killed shim does: the
// rest is that nothing is left behind, and that the trace says what happened.
func TestKilledRelay(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
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

// The root of a sandbox whose relay dies before a task runs is left to delete.
func TestRelayKilledBeforeTheTaskRuns(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		// A runc that is not done with create until the relay is gone.
		runc := script(t, in, "slow-runc", `case " $* " in *" create "*)
	for p in /proc/[0-9]*; do
		case "$(tr '\0' ' ' < $p/cmdline 2>/dev/null)" in *"-id c1 "*" relay ") kill -9 ${p#/proc/};; esac
	done;;
esac
exec runc "$@"`)
		res := r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), "--runc-binary", runc, image.Busybox, "c1", "true")
		if res.Code == 0 {
			t.Errorf("container ran though its relay was killed: %s", res.Stderr)
		}
		settle(t, in)
		until(t, "the root", func() bool { return roots(t, in) > 0 })
		root := otlprecv.Named(spans(t, in), "sandbox start")
		if len(root) != 1 || !strings.Contains(root[0].GetStatus().GetMessage(), "the relay died") {
			t.Errorf("root spans %v, want one that says that the relay died", root)
		}
		left, err := filepath.Glob(filepath.Join(r.Dir, "state/io.containerd.runtime.v2.task/*/c1"))
		if err != nil || len(left) > 0 {
			t.Errorf("bundles left: %q, %v", left, err)
		}
	})
}
