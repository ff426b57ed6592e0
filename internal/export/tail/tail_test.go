package tail

import (
	"fmt"
	"slices"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
)

var begin = time.Date(2026, 8, 12, 10, 0, 0, 0, time.UTC)

// feed gives a sampler records, which are numbered.
type feed struct {
	*Sampler
	n   int64
	now time.Time
}

func newFeed(o Options) *feed { return &feed{Sampler: New(o, nil).Sampler(), now: begin} }

func (f *feed) record(kind journal.Kind, spans int) journal.Record {
	f.n++
	return journal.Record{Time: f.now, Kind: kind, Offset: f.n, Spans: spans}
}

func span(trace byte, name string, took time.Duration, failed bool) *tracepb.Span {
	s := &tracepb.Span{TraceId: append(make([]byte, 15), trace), Name: name, StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + uint64(took)}
	if failed {
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	return s
}

// of makes a span one of a container.
func of(container string, s *tracepb.Span) *tracepb.Span {
	s.Attributes = append(s.Attributes, &commonpb.KeyValue{Key: names.Container, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: container}}})
	return s
}

func data(sandbox, run string, spans ...*tracepb.Span) *tracepb.TracesData {
	text := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	res := &resourcepb.Resource{}
	if sandbox != "" {
		res.Attributes = []*commonpb.KeyValue{text(names.Sandbox, sandbox), text(names.Run, run)}
	}
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{Resource: res, ScopeSpans: []*tracepb.ScopeSpans{{
		Scope: &commonpb.InstrumentationScope{Name: names.ShimScope}, Spans: spans,
	}}}}}
}

// pod takes spans of a sandbox's first run.
func (f *feed) pod(sandbox string, spans ...*tracepb.Span) Verdict {
	return f.Take(f.record(journal.KindTraces, len(spans)), data(sandbox, "1", spans...), f.now)
}

// others takes spans of other programs.
func (f *feed) others(spans ...*tracepb.Span) Verdict {
	return f.Take(f.record(journal.KindPosted, len(spans)), data("", "", spans...), f.now)
}

// ready returns what may be shipped now, by the records' numbers.
func (f *feed) ready() (all []int64) {
	for {
		at, ok := f.Next()
		if !ok {
			f.Settled()
			return all
		}
		all = append(all, at.Offset)
	}
}

const ms = time.Millisecond

var slow = Options{Only: Slow, SlowStart: time.Second}

func TestDecisions(t *testing.T) {
	for name, c := range map[string]struct {
		o     Options
		spans []*tracepb.Span
		want  Verdict
	}{
		"all":                    {Options{}, []*tracepb.Span{span(1, names.SandboxStart, ms, false)}, Ship},
		"quick":                  {slow, []*tracepb.Span{span(1, names.SandboxStart, ms, false)}, Out},
		"slow":                   {slow, []*tracepb.Span{span(1, names.SandboxStart, time.Second, false)}, Ship},
		"slow, but not failed":   {Options{Only: Failed, SlowStart: time.Second}, []*tracepb.Span{span(1, names.SandboxStart, time.Hour, false)}, Out},
		"failed":                 {Options{Only: Failed}, []*tracepb.Span{span(1, names.SandboxStart, ms, false), span(1, "x", 0, true)}, Ship},
		"deleted before a start": {Options{Only: Failed}, []*tracepb.Span{span(1, names.ShimStart, ms, false), span(1, names.ShimDelete, ms, false)}, Ship},
		"deleted, long after":    {Options{Only: Failed}, []*tracepb.Span{span(1, "Kill", 0, true), span(1, names.ShimDelete, ms, false)}, Out},
		"a container deleted":    {Options{Only: Failed}, []*tracepb.Span{span(1, names.ShimStart, ms, false), of("app", span(1, names.ShimDelete, ms, false))}, Hold},
		"switched on":            {Options{Only: Failed}, []*tracepb.Span{span(1, names.SwitchedOn, 0, false)}, Ship},
		"undecided":              {slow, []*tracepb.Span{span(1, "Create", time.Hour, true)}, Hold},
		"ratio 1":                {Options{Only: Failed, Ratio: 1}, []*tracepb.Span{span(1, names.SandboxStart, ms, false)}, Ship},
	} {
		f := newFeed(c.o)
		if got := f.pod("a", c.spans...); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	// An expected failure is none.
	f := newFeed(Options{Only: Failed})
	poll := span(1, "State", 0, true)
	poll.Attributes = []*commonpb.KeyValue{{Key: names.Expected, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}}}
	if got := f.pod("a", poll, span(1, names.SandboxStart, ms, false)); got != Out {
		t.Errorf("an expected failure: %v", got)
	}
}

// TestFirstContainer: a pod's start is over when its first container has started or failed
// to, or after a while without one.
func TestFirstContainer(t *testing.T) {
	for name, c := range map[string]struct {
		then *tracepb.Span
		wait time.Duration
		want Verdict
	}{
		"the container starts":      {of("app", span(1, "containerd.task.v3.Task/Start", ms, false)), 0, Out},
		"it fails":                  {of("app", span(1, "containerd.task.v3.Task/Create", ms, true)), 0, Ship},
		"the sandbox's own starts":  {of("a", span(1, "containerd.task.v3.Task/Start", ms, false)), 0, Hold},
		"another call":              {of("app", span(1, "containerd.task.v3.Task/Create", ms, false)), 0, Hold},
		"it has none, for a moment": {nil, grace - 1, Hold},
		"it has none":               {nil, grace, Out},
		"it is deleted without one": {span(1, names.ShimDelete, ms, false), 0, Out},
	} {
		f := newFeed(Options{Only: Failed})
		pod := func(s *tracepb.Span) Verdict {
			d := data("a", "1", s)
			res := d.ResourceSpans[0].Resource
			res.Attributes = append(res.Attributes, &commonpb.KeyValue{Key: names.Pod, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: "web"}}})
			return f.Take(f.record(journal.KindTraces, 1), d, f.now)
		}
		if got := pod(span(1, names.SandboxStart, ms, false)); got != Hold {
			t.Fatalf("%s: %v before", name, got)
		}
		if c.wait > 0 {
			f.Expire(begin.Add(c.wait))
			c.then = span(1, "State", 0, false)
		}
		if got := pod(c.then); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		if f.ready(); f.Waits() != (c.want == Hold) {
			t.Errorf("%s: something waits", name)
		}
	}
}

// TestForgotten: a healthy sandbox whose decision is forgotten is still kept out when it
// ends; those that are sent are remembered longer.
func TestForgotten(t *testing.T) {
	f := newFeed(Options{Only: Failed})
	f.pod("broken", span(1, names.SandboxStart, ms, true))
	f.pod("old", span(2, names.SandboxStart, ms, false))
	for i := range maxRuns {
		f.pod(fmt.Sprint(i), span(3, names.SandboxStart, ms, false))
	}
	if f.runs[keyOf("old", "1")] != nil {
		t.Fatal("it is not forgotten")
	}
	f.ready()
	if f.pod("broken", span(1, "Kill", 0, false)) != Ship {
		t.Error("of a failed one the end is kept out")
	}
	if got := f.pod("old", span(2, "Kill", 0, true)); got != Hold {
		t.Errorf("%v", got)
	}
	f.Expire(begin.Add(grace))
	if f.pod("old", span(2, names.ShimDelete, 0, false)) != Out || len(f.ready()) > 0 {
		t.Error("the end of a healthy one is sent")
	}
}

// TestRuns: two runs of one id are decided apart, and earlier decisions hold.
func TestRuns(t *testing.T) {
	f := newFeed(slow)
	take := func(run string, s *tracepb.Span) Verdict {
		return f.Take(f.record(journal.KindTraces, 1), data("a", run, s), f.now)
	}
	if take("1", span(1, names.SandboxStart, time.Minute, false)) != Ship || take("2", span(2, names.SandboxStart, ms, false)) != Out ||
		take("1", span(1, "late", 0, false)) != Ship {
		t.Error("two runs are one")
	}
	decided, _ := f.Decided()
	again := &feed{Sampler: New(slow, decided).Sampler(), now: begin}
	if got := again.Take(again.record(journal.KindTraces, 1), data("a", "2", span(2, "late", 0, true)), begin); got != Out {
		t.Errorf("another sampler says %v", got)
	}
}

func TestRatio(t *testing.T) {
	f := newFeed(Options{Only: Failed, Ratio: 0.2})
	in := 0
	for i := range 2000 {
		if f.pod(fmt.Sprint("sandbox ", i), span(1, names.SandboxStart, ms, false)) == Ship {
			in++
		}
	}
	if in < 300 || in > 500 { // some 400
		t.Errorf("%d of 2000 with a ratio of 0.2", in)
	}
}

// TestPosted: other programs' spans follow the sandboxes in their trace; of a record of
// several traces, those of sandboxes that are kept out are filtered; without a sandbox
// they go after a minute.
func TestPosted(t *testing.T) {
	f := newFeed(slow)
	if f.others(span(1, "RunPodSandbox", 0, false)) != Hold { // 1
		t.Error("a trace of an unknown sandbox is not held")
	}
	f.others(span(1, "of 1", 0, false), span(2, "of 2", 0, false)) // 2
	f.others(span(9, "kubelet", 0, false))                         // 3
	f.pod("quick", span(1, "Create", 0, false))                    // 4
	f.pod("quick", span(1, names.SandboxStart, ms, false))
	if got, out := f.ready(), f.Count(); len(got) > 0 || out != 3 {
		t.Errorf("ready: %v, out: %d", got, out)
	}
	f.pod("slow", span(2, names.SandboxStart, time.Minute, false))
	if got := f.ready(); !slices.Equal(got, []int64{2}) {
		t.Errorf("ready: %v", got)
	}
	mixed := data("", "", span(1, "of 1", 0, false), span(2, "of 2", 0, false))
	f.Filter(mixed)
	if left := mixed.ResourceSpans[0].ScopeSpans[0].Spans; len(left) != 1 || left[0].Name != "of 2" {
		t.Errorf("filtered: %v", left)
	}
	f.Expire(begin.Add(grace - 1))
	if got := f.ready(); len(got) > 0 {
		t.Errorf("ready: %v", got)
	}
	f.Expire(begin.Add(grace))
	if got := f.ready(); !slices.Equal(got, []int64{3}) {
		t.Errorf("ready: %v", got)
	}
	if f.Waits() || len(f.Held()) > 0 {
		t.Error("something waits")
	}
}

// TestPostedLate: what is posted while a sandbox starts waits for it, however long that
// takes: whose it is, the sandbox's calls say when they end.
func TestPostedLate(t *testing.T) {
	f := newFeed(Options{Only: Failed})
	f.pod("a", span(1, names.ShimStart, 0, false))
	f.others(span(2, "network", 0, false))
	f.Expire(begin.Add(5 * grace))
	if got := f.ready(); len(got) > 0 {
		t.Errorf("ready: %v", got)
	}
	f.pod("a", span(2, "containerd.task.v3.Task/Create", 0, false), span(1, names.SandboxStart, 5*grace, false))
	if got, out := f.ready(), f.Count(); len(got) > 0 || out != 4 || f.Waits() {
		t.Errorf("ready: %v, out: %d", got, out)
	}
}

// TestKnow: what another process has read of a decided sandbox says whose a trace is.
func TestKnow(t *testing.T) {
	f := newFeed(slow)
	f.pod("quick", span(1, names.SandboxStart, ms, false))
	decided, _ := f.Decided()
	again := &feed{Sampler: New(slow, decided).Sampler(), now: begin}
	again.Know(data("quick", "1", span(1, names.SandboxStart, ms, false)))
	again.Know(data("unknown", "1", span(3, names.SandboxStart, ms, false)))
	if got := again.others(span(1, "RunPodSandbox", 0, false)); got != Out {
		t.Errorf("a span in a kept out sandbox's trace: %v", got)
	}
	if got := again.others(span(3, "RunPodSandbox", 0, false)); got != Hold {
		t.Errorf("a span in another trace: %v", got)
	}
}

// TestExpire: a sandbox that does not start is slow.
func TestExpire(t *testing.T) {
	f := newFeed(slow)
	f.pod("never", span(1, "Create", 0, false))
	f.Expire(begin.Add(maxWait - 1))
	if len(f.ready()) > 0 {
		t.Error("too early")
	}
	f.Expire(begin.Add(maxWait))
	if len(f.ready()) != 1 || f.pod("never", span(1, "late", 0, false)) != Ship {
		t.Error("too late")
	}
}

// TestHeld: what is held stays so until it is settled, also what is on its way.
func TestHeld(t *testing.T) {
	f := newFeed(slow)
	f.pod("a", span(1, "Create", 0, false))
	f.pod("b", span(2, "Create", 0, false))
	f.pod("a", span(1, names.SandboxStart, time.Hour, false))
	if _, ok := f.Next(); !ok || len(f.Held()) != 2 {
		t.Errorf("held: %v", f.Held())
	}
	f.Settled()
	if len(f.Held()) != 1 {
		t.Errorf("held: %v", f.Held())
	}
}

// TestBounds: a flood of sandboxes, records and traces costs a bounded amount, and nothing
// is kept out for it.
func TestBounds(t *testing.T) {
	f := newFeed(slow)
	for i := range maxTraces + 2*maxRuns {
		s := span(byte(i), "Create", 0, false)
		s.TraceId[0], s.TraceId[1], s.TraceId[2] = byte(i>>8), byte(i>>16), 1
		if i%2 == 0 {
			f.pod(fmt.Sprint("sandbox ", i), s)
		} else {
			f.others(s)
		}
		if i%100 == 0 {
			f.ready()
		}
	}
	f.ready()
	if len(f.runs) > maxRuns || len(f.order) > maxRuns || len(f.traces) > maxTraces || len(f.Held()) > maxHeld+1 || f.Count() > 0 {
		t.Errorf("%d runs, %d traces, %d held", len(f.runs), len(f.traces), len(f.Held()))
	}
}

// TestOneChoice: the samplers of two targets decide alike on what one of them reads later.
func TestOneChoice(t *testing.T) {
	c := New(slow, nil)
	ahead, behind := &feed{Sampler: c.Sampler(), now: begin}, &feed{Sampler: c.Sampler(), now: begin}
	first := data("a", "1", span(1, "create", 0, false))
	r := ahead.record(journal.KindTraces, 1)
	if ahead.Take(r, first, begin) != Hold || behind.Take(r, first, begin) != Hold {
		t.Fatal("it is decided before it has started")
	}
	over := data("a", "1", span(1, names.SandboxStart, time.Hour, false))
	if ahead.Take(ahead.record(journal.KindTraces, 1), over, begin) != Ship {
		t.Error("a slow start is kept out")
	}
	if _, ok := behind.Next(); !ok {
		t.Error("what the other target decided does not hold")
	}
	// It would be kept out by now.
	c.Set(Options{Only: Failed})
	if behind.Take(behind.record(journal.KindTraces, 1), over, begin) != Ship {
		t.Error("it is decided twice")
	}
	if decided, made := c.Decided(); len(decided) != 1 || made != 1 {
		t.Errorf("%d decisions on %d runs", made, len(decided))
	}
}
