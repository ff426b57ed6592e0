package explain_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// fuzzNames are names that the rules know, and others.
var fuzzNames = []string{
	names.SandboxStart, names.ShimStart, names.InnerStart, names.RelaySpawn, storytest.Task + "Create", storytest.Task + "Start", storytest.Task + "State",
	storytest.Task + "Stats", names.VMBoot, names.VMMStart, names.GuestBoot, names.AgentConnect, "handler_task_message", "handler_task_request",
	"start_process", "connect", "ttrpc.CreateContainer", "create_container", "do_create_container", "baremount", "root-span", "wait_process",
	"runc create", "cni.Setup", "pull.fetch", "pkg.unpack.unpacker.unpackLayer", "pkg.unpack.unpacker.fetchLayer", names.LostAgentSpan, names.ProgramExecuted, "",
}

// FuzzExplain makes trees of spans in any order and at any time: whatever they are, the
// path has no holes, and all of it can be printed.
func FuzzExplain(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 100, 0, 1, 0, 5, 40, 1, 4, 1, 50, 40, 1, 5, 1, 90, 10})
	f.Add([]byte{1, 4, 0, 0, 250, 2, 13, 1, 1, 200, 2, 14, 2, 180, 9, 3, 17, 1, 0, 255, 1, 5, 0, 251, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		resources := []*resourcepb.Resource{
			containerd, storytest.Resource("containerd-shim-kata-v2"), storytest.Resource(names.RuntimeScope), storytest.Resource(names.AgentScope),
		}
		s := &storytest.Script{}
		for i := 0; len(data) >= 5 && i < 300; i, data = i+1, data[5:] {
			trace := "s"
			if data[0]&4 != 0 {
				trace = "c"
			}
			parent := ""
			if data[2] > 0 {
				parent = fmt.Sprint(int(data[2]) % 64)
			}
			changes := []storytest.Change{storytest.Event(names.ProgramExecuted, time.Duration(data[4]/2)*ms)}
			switch data[0] >> 4 & 3 {
			case 1:
				changes = append(changes, ofApp)
			case 2:
				changes = append(changes, ofPause, storytest.Failed("DEADLINE_EXCEEDED", "timed out"))
			case 3:
				changes = append(changes, process("hook", "x", 0), storytest.Linked("s", "1"))
			}
			s.Span(resources[data[0]&3], trace, fmt.Sprint(i), parent, fuzzNames[int(data[1])%len(fuzzNames)],
				time.Duration(data[3])*10*ms, time.Duration(data[4])*10*ms, changes...)
		}
		message := storytest.Message(s.Spans)
		x := waterfall.NewIndex()
		if err := x.Add(message, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, story := range x.Stories() {
			b := waterfall.NewBuilder(story, waterfall.Limits{}, true)
			if err := b.Add(message); err != nil {
				t.Fatal(err)
			}
			e := explain.Explain(story, b.Tree(), []causes.Loss{{At: time.Unix(0, int64(story.Interval().From)), Reason: "queue_full", Spans: 1}})
			_, _, _ = e.Text(), e.Head(), e.Critical()
			if out, err := json.Marshal(e); err != nil || !json.Valid(out) {
				t.Fatal(err)
			}
			if e.Start == nil {
				continue
			}
			at := e.Start.From
			for _, g := range e.Start.Path {
				if g.From != at || g.To <= g.From {
					t.Fatalf("a segment from %d to %d after %d", g.From, g.To, at)
				}
				at = g.To
			}
			if c := &e.Coverage; at != e.Start.To || c.BySpan+c.Inferred+c.Unnamed != c.Total {
				t.Fatalf("the path ends at %d of %d; %+v", at, e.Start.To, c)
			}
		}
	})
}
