package traced_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// An id that is used again and again at once gets a trace each time, with all of
// that run and nothing of another.
func TestReusedIDs(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		const runs = 10
		for i := range runs {
			want := fmt.Sprint("run ", i)
			res := in.Rig.CtrHearing([]string{want}, "run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "again", "sh", "-c", "echo "+want+rig.Hear+fmt.Sprint("; exit ", i))
			if res.Code != i || res.Out() != want {
				t.Errorf("run %d printed %q: %v", i, res.Out(), res.Check())
			}
		}
		settle(t, in)
		if traced.Killing() {
			return
		}
		if strings.Contains(in.Rig.Log(), "cannot be asked") {
			t.Error("a relay has begun before the one of the run before it had left")
		}

		type run struct {
			names    map[string]int
			statuses map[any]bool
		}
		traces := map[string]*run{}
		for _, s := range spans(t, in) {
			r := traces[s.TraceID]
			if r == nil {
				r = &run{map[string]int{}, map[any]bool{}}
				traces[s.TraceID] = r
			}
			r.names[s.Name]++
			if s.Name == "container exited" {
				r.statuses[s.Attrs["process.exit.code"]] = true
			}
		}
		if len(traces) != runs {
			t.Errorf("%d traces, want %d", len(traces), runs)
		}
		statuses := map[any]bool{}
		for id, r := range traces {
			for _, name := range []string{"sandbox start", "shim start", "inner start", "relay spawn", "container exited", "shim delete", "inner delete"} {
				if r.names[name] != 1 {
					t.Errorf("trace %s has %d spans %q, want 1: %v", id, r.names[name], name, r.names)
				}
			}
			for s := range r.statuses {
				statuses[s] = true
			}
		}
		if len(statuses) != runs {
			t.Errorf("exit statuses %v in the traces, want %d different ones", statuses, runs)
		}
	})
}
