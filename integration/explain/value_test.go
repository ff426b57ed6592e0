package explain_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestOnlySlow: of three containers a backend that wants slow starts only gets the slow one,
// with all that its caller and its shim have recorded, and no part of the other two.
func TestOnlySlow(t *testing.T) {
	const backend, slowStart = "127.0.0.1:4399", 4 * time.Second
	s := start(t, traced.Options{Config: fmt.Sprintf("[export]\nendpoint = 'http://%s'\nonly = 'slow'\nslow_start = '%s'\n", backend, slowStart)})
	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: s.Rig.NetNS(), HTTPAddr: backend})
	check(t, err)
	t.Cleanup(func() { recv.Close() })
	s.run("quick-1", bundle{root: t.TempDir()}, nil)
	s.run("slow", bundle{root: t.TempDir(), hook: "5"}, nil)
	s.run("quick-2", bundle{root: t.TempDir()}, nil)

	// byTrace returns the spans of each trace, and which container each is of.
	byTrace := func(spans []otlprecv.Span) (n map[string]int, of map[string]any) {
		n, of = make(map[string]int), make(map[string]any)
		for _, span := range spans {
			n[span.TraceID]++
			if id := span.Resource["shimtrace.sandbox.id"]; id != nil {
				of[span.TraceID] = id
			}
		}
		return n, of
	}
	said, took := "", make(map[any]time.Duration)
	defer func() {
		if t.Failed() {
			t.Log(said)
		}
	}()
	testkit.Until(t, "the slow container to be shipped, and no other one", func() bool {
		all, err := s.SpansBut(losses.KeptOut.String())
		check(t, err)
		recorded, of := byTrace(all)
		shipped, _ := byTrace(recv.Spans())
		said = ""
		for trace, id := range of {
			said += fmt.Sprintf("%s of %v: %d spans, %d shipped\n", trace, id, recorded[trace], shipped[trace])
		}
		for _, root := range otlprecv.Named(all, names.SandboxStart) {
			took[root.Resource["shimtrace.sandbox.id"]] = root.End().Sub(root.Start())
		}
		slow, whole := 0, 0
		for trace, n := range recorded {
			switch id := of[trace]; {
			case id == "slow":
				slow++
				if shipped[trace] == n {
					whole++
				}
			case id != nil && shipped[trace] > 0 && took[id] < slowStart:
				t.Fatalf("%d spans of %v were shipped", shipped[trace], id)
			}
		}
		return slow > 1 && whole == slow // the sandbox's and the caller's
	})
	if took["quick-1"] >= slowStart && took["quick-2"] >= slowStart {
		t.Skipf("this machine is too busy for a quick start: %v", took)
	}
	testkit.Until(t, "the others to be counted", func() bool {
		_, err := s.Spans()
		return err != nil && strings.Contains(err.Error(), losses.KeptOut.String())
	})
}
