package collate

import (
	"maps"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// agentCapture is a capture with the shim's calls for it.
type agentCapture struct {
	spans []*span.Span
	by    map[trace.SpanID]span.Span // as they came
	calls []calls.Call
	cause map[trace.SpanID]trace.SpanContext // of requests
}

// theirs are the methods that cause requests, as docs/kata-span-protocol.md has them; "" is the
// sandbox's root.
var theirs = map[string]string{
	"create_sandbox": "Create", "get_guest_details": "Create", "create_container": "Create",
	"start_container": "Start", "exec_process": "Start", "signal_process": "Kill",
	"remove_container": "Delete", "remove_stale_virtiofs_share_mounts": "Delete", "destroy_sandbox": "Shutdown",
	"stats_container": "Stats", "wait_process": "", "root-span": "", "watch_uevents": "",
}

// load reads a capture and derives the calls from its requests: each a little longer than its
// request, except that the sandbox's Create begins before the VM's boot.
func load(t *testing.T, name string, own func(n int) trace.TraceID) *agentCapture {
	cp := &agentCapture{
		spans: captured.AgentSpans(t, name),
		by:    make(map[trace.SpanID]span.Span),
		cause: make(map[trace.SpanID]trace.SpanContext),
	}
	for _, s := range cp.spans {
		cp.by[s.SpanID] = *s
	}
	first := slices.MinFunc(cp.spans, func(a, b *span.Span) int { return int(int64(a.Start) - int64(b.Start)) })
	rpcs := slices.DeleteFunc(slices.Clone(cp.spans), func(s *span.Span) bool {
		m, known := theirs[s.Name]
		return !known && s.Name != "do_exec_process" || known && m == ""
	})
	slices.SortFunc(rpcs, func(a, b *span.Span) int { return int(int64(a.Start) - int64(b.Start)) })

	type key struct{ method, container, exec string }
	ofSandbox, open := "", make(map[key]int)
	for _, s := range rpcs {
		if s.Name == "create_container" {
			ofSandbox = s.ContainerID
			break
		}
	}
	execs := 0
	for _, s := range rpcs {
		method, exec := theirs[s.Name], ""
		if s.Name == "do_exec_process" {
			if _, whole := cp.by[s.ParentID]; whole {
				continue
			}
			method = "Start"
		}
		container := s.ContainerID
		if container == "" {
			container = ofSandbox
		}
		if s.ExecID != "" {
			exec = s.ExecID
			if len(exec) == 36 { // the Go runtime's own name
				execs++
				exec = "exec-" + string(rune('0'+execs))
			}
		}
		k := key{method, container, exec}
		if s.Name == "signal_process" && s.ExecID != "" {
			k.exec = s.ExecID
		}
		start, end := int64(s.Start)-5*ms, int64(s.End)+5*ms
		if i, ok := open[k]; ok && (s.Name == "create_container" || s.Name == "get_guest_details" || s.Name == "remove_stale_virtiofs_share_mounts" || s.Name == "create_sandbox") {
			cp.calls[i].End = time.Unix(0, end)
			cp.cause[s.SpanID] = cp.calls[i].SpanContext
			continue
		}
		if method == "Create" && container == ofSandbox {
			start = int64(first.Start) - 500*ms
		}
		n := len(cp.calls)
		cp.calls = append(cp.calls, calls.Call{
			Method: method, ContainerID: k.container, ExecID: k.exec, SpanContext: context(own(n), uint64(0xC000+n)),
			Start: time.Unix(0, start), End: time.Unix(0, end),
		})
		open[k] = n
		cp.cause[s.SpanID] = cp.calls[n].SpanContext
	}
	return cp
}

// play gives a bed calls and spans in their order: each call as it begins and ends, each span
// some seconds after its end.
func (cp *agentCapture) play(b *bed) {
	b.live(append(b.lives(cp.calls), b.arrivals(cp.spans)...))
	b.Ended()
}

// whole checks that the sent spans form one tree below the sandbox's calls: no orphan, and no
// span in another trace than its parent.
func (cp *agentCapture) whole(b *bed) {
	b.t.Helper()
	ours := map[trace.SpanID]trace.TraceID{rootSpan.SpanID(): rootSpan.TraceID()}
	for _, c := range cp.calls {
		ours[c.SpanContext.SpanID()] = c.SpanContext.TraceID()
	}
	for _, s := range b.out {
		parent := parentOf(s)
		in, known := ours[parent]
		if p := b.by[parent]; p != nil {
			in, known = trace.TraceID(p.TraceId), true
		}
		if !known {
			b.t.Errorf("%s %x is an orphan", s.Name, s.SpanId)
		} else if in != trace.TraceID(s.TraceId) {
			b.t.Errorf("%s %x is in another trace than its parent", s.Name, s.SpanId)
		}
	}
}

func one(int) trace.TraceID { return ourTrace }

func TestCaptures(t *testing.T) {
	for _, tc := range []struct {
		name         string
		spans, quiet int
		lost         map[string]string // placeholders, each by the name of a child
	}{
		{"kata-3.28.0-agent", 60, 2, map[string]string{"do_exec_process": "Start"}},
		{"kata-4.1.0-pod.agent", 168, 0, nil},
		{"kata-4.1.0-rs-pod.agent", 122, 0, map[string]string{"new": "", "process": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cp := load(t, tc.name, one)
			if len(cp.spans) != tc.spans {
				t.Fatalf("%d spans in the capture, want %d", len(cp.spans), tc.spans)
			}
			b := newBed(t, nil)
			cp.play(b)
			b.balance()
			cp.whole(b)
			stats, placeholders := 0, make(map[trace.SpanID]*tracepb.Span)
			for _, s := range cp.by {
				if s.Name == "stats_container" {
					stats++
				}
			}
			if tc.quiet > 0 && stats != tc.quiet {
				t.Errorf("%d spans of stats_container, want %d", stats, tc.quiet)
			}
			if want := map[Reason]int{Quiet: stats}; !maps.Equal(b.drops, want) {
				t.Errorf("dropped %v, want %v", b.drops, want)
			}
			for _, s := range b.out {
				if s.Name == names.LostAgentSpan {
					placeholders[trace.SpanID(s.SpanId)] = s
					continue
				}
				cp.placed(b, s)
			}
			if len(b.out) != tc.spans-stats+len(tc.lost) {
				t.Errorf("%d spans were sent", len(b.out))
			}
			for child, method := range tc.lost {
				i := slices.IndexFunc(b.out, func(s *tracepb.Span) bool {
					return s.Name == child && placeholders[parentOf(s)] != nil
				})
				if i < 0 {
					t.Errorf("no placeholder for the parent of %s", child)
					continue
				}
				p := placeholders[parentOf(b.out[i])]
				if !attribute(p, names.Placeholder).GetBoolValue() {
					t.Errorf("a placeholder without %s", names.Placeholder)
				}
				if p.StartTimeUnixNano != b.out[i].StartTimeUnixNano || p.EndTimeUnixNano != b.out[i].EndTimeUnixNano {
					t.Errorf("the placeholder of %s does not last as long as its children", child)
				}
				if got := cp.methodOf(parentOf(p)); got != method {
					t.Errorf("the placeholder of %s is below %q, want %q", child, got, method)
				}
			}
			if len(placeholders) != len(tc.lost) {
				t.Errorf("%d placeholders, want %d", len(placeholders), len(tc.lost))
			}
			if s := b.Stats(); s.Held+s.Awaited+s.HeldBytes != 0 || s.Corrected != 0 {
				t.Errorf("at the end %+v", s)
			}
		})
	}
}

// placed checks the parent and trace of one span.
func (cp *agentCapture) placed(b *bed, s *tracepb.Span) {
	b.t.Helper()
	id, parent := trace.SpanID(s.SpanId), parentOf(s)
	was := cp.by[id]
	method, isRPC := theirs[s.Name]
	_, parentCame := cp.by[was.ParentID]
	switch {
	case was.Start != s.StartTimeUnixNano || was.End != s.EndTimeUnixNano:
		b.t.Errorf("%s %v has other times than it came with", s.Name, id)
	case parentCame || !isRPC && was.ParentID != [8]byte{}:
		if parent != was.ParentID {
			b.t.Errorf("%s %v is below %v, not below its parent", s.Name, id, parent)
		}
	case isRPC && method == "":
		if parent != rootSpan.SpanID() {
			b.t.Errorf("%s %v is below %v, not the root", s.Name, id, parent)
		}
	case isRPC:
		if want := cp.cause[id]; parent != want.SpanID() {
			b.t.Errorf("%s %v is below %v (%s), want %v (%s)", s.Name, id, parent, cp.methodOf(parent), want.SpanID(), cp.methodOf(want.SpanID()))
		}
	default:
		if p := cp.by[parent]; p.Name != "create_sandbox" {
			b.t.Errorf("%s %v is below %v %s, not create_sandbox", s.Name, id, parent, p.Name)
		}
	}
}

// methodOf returns the method of the call with a span, "" for the root.
func (cp *agentCapture) methodOf(id trace.SpanID) string {
	for _, c := range cp.calls {
		if c.SpanContext.SpanID() == id {
			return c.Method
		}
	}
	if id == rootSpan.SpanID() {
		return ""
	}
	return "none: " + id.String()
}

// Each call is in its own trace, as when containerd is traced.
func TestCapturesAcrossTraces(t *testing.T) {
	for _, name := range []string{"kata-3.28.0-agent", "kata-4.1.0-pod.agent", "kata-4.1.0-rs-pod.agent"} {
		t.Run(name, func(t *testing.T) {
			cp := load(t, name, func(n int) trace.TraceID { return traceID(uint64(0xBB00 + n)) })
			b := newBed(t, nil)
			cp.play(b)
			b.balance()
			cp.whole(b)
			for _, s := range b.out {
				if s.Name != names.LostAgentSpan {
					cp.placed(b, s)
				}
			}
		})
	}
}

func TestCapturesIsolated(t *testing.T) {
	for _, name := range []string{"kata-3.28.0-agent", "kata-4.1.0-rs-pod.agent"} {
		t.Run(name, func(t *testing.T) {
			cp := load(t, name, one)
			b := newBed(t, func(o *Options) { o.Isolated = true })
			cp.play(b)
			b.balance()
			traces := make(map[trace.TraceID]bool)
			for _, s := range b.out {
				id := trace.TraceID(s.TraceId)
				if id == ourTrace {
					t.Errorf("%s is in the sandbox's trace", s.Name)
				}
				parent := b.by[parentOf(s)]
				switch {
				case len(s.ParentSpanId) == 0:
					if len(s.Links) != 1 || trace.SpanID(s.Links[0].SpanId) != rootSpan.SpanID() {
						t.Errorf("root %s is not linked to the sandbox's", s.Name)
					}
					traces[id] = true
				case parent == nil:
					t.Errorf("%s is an orphan", s.Name)
				case trace.TraceID(parent.TraceId) != id:
					t.Errorf("%s is in another trace than its parent", s.Name)
				}
			}
			for _, s := range cp.by {
				if traces[s.TraceID] {
					t.Errorf("the guest chose a trace id")
				}
			}
		})
	}
}

// The Go runtime of the 4.1 pod traced itself, and put its contexts into requests.
func TestCaptureWithRuntimeSpans(t *testing.T) {
	runtimes := func(cp *agentCapture) (trace.TraceID, map[trace.SpanID]bool) {
		var id trace.TraceID
		spans := make(map[trace.SpanID]bool)
		for _, s := range cp.by {
			if _, came := cp.by[s.ParentID]; !came && s.ParentID != [8]byte{} {
				id, spans[s.ParentID] = s.TraceID, true
			}
		}
		return id, spans
	}
	t.Run("own", func(t *testing.T) {
		cp := load(t, "kata-4.1.0-pod.agent", one)
		b := newBed(t, nil)
		id, spans := runtimes(cp)
		b.AddTrace(id)
		cp.play(b)
		b.balance()
		n := 0
		for _, s := range b.out {
			was := cp.by[trace.SpanID(s.SpanId)]
			if was.TraceID == id {
				n++
				if trace.TraceID(s.TraceId) != id || parentOf(s) != was.ParentID {
					t.Errorf("%s was moved", s.Name)
				}
				if b.by[was.ParentID] == nil && !spans[was.ParentID] {
					t.Errorf("%s is an orphan", s.Name)
				}
			} else if trace.TraceID(s.TraceId) == was.TraceID {
				t.Errorf("%s is in a trace that the guest chose", s.Name)
			}
		}
		if n < 100 || b.Stats().Placeholders != 0 {
			t.Errorf("%d spans in the runtime's trace, %d placeholders", n, b.Stats().Placeholders)
		}
	})
}
