package vmshim_test

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/seeded"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// explained explains the start of a sandbox whose spans have arrived.
func explained(t *testing.T, in *traced.Install, sandbox string) *explain.Explanation {
	t.Helper()
	var all [][]byte
	index := waterfall.NewIndex()
	_, err := journal.Scan(in.Journal, func(r journal.Record) error {
		if r.Kind != journal.KindTraces {
			return nil
		}
		all = append(all, append([]byte(nil), r.Payload...))
		return index.Add(r.Payload, time.Now())
	})
	check(t, err)
	for _, story := range index.Stories() {
		if story.Sandbox != sandbox {
			continue
		}
		b := waterfall.NewBuilder(story, waterfall.Limits{}, true)
		for _, m := range all {
			check(t, b.Add(m))
		}
		return explain.Explain(story, b.Tree(), nil)
	}
	t.Fatalf("no story of %s", sandbox)
	return nil
}

// besides are what a busy machine may suffer from as well.
var besides = []string{"host-pressure", "cold-page-cache"}

// TestExplainLateAgent: the agent listens three seconds after the VMM.
func TestExplainLateAgent(t *testing.T) {
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	in, runtime := wrapped(t, "inject = 'on'\n[jaeger]\nreceive = 'on'\n[export]\nshipper = '"+shipper+"'\n",
		"VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://"+runtimesEndpoint+"/api/traces", "VMSHIM_BOOT=3s")
	check(t, in.Rig.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "true").Check())
	waitSpans(t, in, "c1", "root-span", "shim delete", "rootSpan")
	e := explained(t, in, "c1")
	t.Logf("%s", e)
	seeded.Named(t, seeded.Cause{ID: "late-agent", How: "an agent that answers three seconds after the VMM is up", Parts: seeded.VM, Also: besides}, e)
}
