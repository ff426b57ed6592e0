package waterfall

import (
	"fmt"
	"strings"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// onDemand is a window of 12 s in a running pod: life-long spans of the runtime and the
// agent that end in it, a call that began before it and one that ends after it.
func onDemand() *script {
	s := &script{}
	shim, agent, runtime := resourceOf("containerd-shim-kata-v2"), resourceOf(names.AgentScope), resourceOf(names.RuntimeScope)
	s.Span(shim, "w", "on", "", names.SwitchedOn, 0, 0)
	s.Span(runtime, "w", "root span", "on", "rootSpan", -43*time.Second, 54*time.Second)
	s.Span(agent, "w", "agent life", "on", "root-span", -41*time.Second, 52*time.Second)
	s.Span(agent, "w", "start sandbox", "agent life", "start_sandbox", -40*time.Second, 51*time.Second)
	s.Span(shim, "w", "before", "on", task+"Exec", -2*time.Second, 3*time.Second)
	s.Span(shim, "w", "within", "on", task+"Start", 4*time.Second, 3*time.Second)
	s.Span(agent, "w", "exec", "within", "exec_process", 5*time.Second, time.Second)
	s.Span(shim, "w", "after", "on", task+"Kill", 11*time.Second, 3*time.Second)
	s.Span(shim, "w", "off", "on", names.SwitchedOff, 12*time.Second, 0)
	return s
}

// TestWindow: a window's length, in the list and in the picture, is the time that
// tracing was on. Spans that begin before it or end after it are marked.
func TestWindow(t *testing.T) {
	s := onDemand()
	_, all := stories(s)
	if len(all) != 1 || all[0].Duration() != 12*time.Second || !all[0].Start.Equal(epoch) {
		t.Fatalf("%d stories, the first from %v, %v long", len(all), all[0].Start, all[0].Duration())
	}
	golden(t, "window.txt", draw(t, s.Spans, Options{Width: 100}))

	t.Run("open", func(t *testing.T) {
		open := &script{Spans: s.Spans[:len(s.Spans)-1]}
		if _, all := stories(open); all[0].Duration() != 14*time.Second || !all[0].Start.Equal(epoch) {
			t.Errorf("from %v, %v long; want from the beginning until the last that happened", all[0].Start, all[0].Duration())
		}
	})
}

// TestClipped: a partly recorded span is marked where it was cut.
func TestClipped(t *testing.T) {
	first := func(start, end time.Duration) change {
		at := func(d time.Duration) *commonpb.AnyValue {
			return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: epoch.Add(d).UnixNano()}}
		}
		return with(attr(names.Clipped, "true"), &commonpb.KeyValue{Key: names.OriginalStart, Value: at(start)}, &commonpb.KeyValue{Key: names.OriginalEnd, Value: at(end)})
	}
	s := joined()
	s.Span(resourceOf(names.AgentScope), "s", "before", "root", "before", 100*ms, 100*ms, first(-time.Hour, 200*ms))
	s.Span(resourceOf(names.AgentScope), "s", "after", "root", "after", 300*ms, 100*ms, first(300*ms, time.Hour))
	out := string(draw(t, s.Spans, Options{Width: 100}))
	for line := range strings.Lines(out) {
		if strings.Contains(line, "before ") && !strings.Contains(line, "begins") && !strings.Contains(line, " ◂━") ||
			strings.Contains(line, " after ") && !strings.Contains(line, "begins") && !strings.Contains(line, "━▸ ") {
			t.Errorf("it is not marked: %s", line)
		}
	}
	if _, all := stories(s); all[0].Duration() != 920*ms {
		t.Errorf("%v long", all[0].Duration())
	}
}

// TestLifeLong: a span of the runtime that began 20 s before the sandbox's start, which
// is now its parent, does not stretch the story.
func TestLifeLong(t *testing.T) {
	s := kataPod()
	s.Span(resourceOf(names.RuntimeScope), "s", "early", "root", "rootSpan", -20*time.Second, time.Minute)
	_, all := stories(s)
	if !all[0].Start.Equal(epoch) {
		t.Errorf("it starts at %v", all[0].Start)
	}
	out := string(draw(t, s.Spans, Options{Width: 100}))
	for line := range strings.Lines(out) {
		if strings.Contains(line, "rootSpan") && !strings.Contains(line, " ◂━") {
			t.Errorf("it is not marked: %s", line)
		}
	}
}

// TestRootsByIdentity: the name of a guest's or runtime's span does not make it the
// root.
func TestRootsByIdentity(t *testing.T) {
	s := joined()
	for i, service := range []string{names.AgentScope, names.RuntimeScope} {
		for j, name := range []string{names.SandboxStart, names.SwitchedOn, names.SwitchedOff, names.ShimStart} {
			s.Span(resourceOf(service), "run", fmt.Sprint("forged ", i, j), "nobody", name, time.Duration(100+j)*ms, 200*ms)
		}
	}
	_, all := stories(s)
	if got := all[0]; string(got.Trace[:]) != string(traceBytes("s")) || got.Startup != 500*ms || got.Duration() != 920*ms || !got.Start.Equal(epoch) {
		t.Errorf("trace %v, %v to start, %v in all from %v", got.Trace, got.Startup, got.Duration(), got.Start)
	}
	if out := string(draw(t, s.Spans, Options{Width: 120})); strings.Contains(out, "not ended, or lost") {
		t.Errorf("a forged span makes the sandbox one whose start is lost:\n%s", out)
	}
}

// TestFarTimes: impossible times do not stretch a story, even one with the agent's
// spans only.
func TestFarTimes(t *testing.T) {
	agent := &resourcepb.Resource{Attributes: resourceOf(names.AgentScope).Attributes[:2]}
	s := &script{}
	s.Span(agent, "a", "mount", "", "mount", 0, 2*time.Second)
	s.Span(agent, "a", "far", "", "from 2140", 114*365*24*time.Hour, time.Second)
	s.Span(agent, "a", "old", "", "from 1970", -56*365*24*time.Hour, time.Second)
	s.Span(agent, "a", "long", "", "to 2140", time.Second, 114*365*24*time.Hour)
	_, all := stories(s)
	if len(all) != 1 || all[0].Duration() != 2*time.Second || !all[0].Start.Equal(epoch) {
		t.Errorf("from %v, %v long", all[0].Start, all[0].Duration())
	}
	golden(t, "far.txt", draw(t, s.Spans, Options{Width: 80}))
}

// TestManyContainers: the last container of many is found, and named.
func TestManyContainers(t *testing.T) {
	s := &script{}
	res := resourceOf("containerd-shim-runc-v2")
	const n = 1000
	for i := range n {
		s.Span(res, "s", fmt.Sprint(i), "root", task+"Create", time.Duration(i)*ms, ms,
			with(attr(names.Container, fmt.Sprint("c", i)), attr(names.ContainerName, fmt.Sprint("name", i))))
	}
	_, all := stories(s)
	if got := all[0].Containers; len(got) != n || got[n-1] != (Container{"c999", "name999"}) {
		t.Errorf("%d containers, the last %v", len(got), got[len(got)-1])
	}
}

// TestClaimedContainers: a guest names no containers if the host does.
func TestClaimedContainers(t *testing.T) {
	s := kataPod()
	s.Span(resourceOf(names.AgentScope), "s", "claim", "root", "create_container", 0, ms, with(attr(names.Container, "somebody else's")))
	_, all := stories(s)
	for _, c := range all[0].Containers {
		if c.ID == "somebody else's" {
			t.Error("the guest's claim is believed")
		}
	}
	alone := &script{}
	alone.Span(resourceOf(names.AgentScope), "s", "claim", "", "create_container", 0, ms, with(attr(names.ClaimedContainer, "own")))
	if _, all := stories(alone); len(all[0].Containers) != 1 {
		t.Errorf("where there is nobody else, the containers are %v", all[0].Containers)
	}
}

// TestRunsInOneTrace: a caller that runs a container twice in one trace makes two
// stories.
func TestRunsInOneTrace(t *testing.T) {
	s := &script{}
	for i, run := range []string{"1", "2"} {
		res := resourceOf("containerd-shim-runc-v2", attr(names.Run, run))
		at := time.Duration(i) * time.Second
		s.Span(res, run, "root "+run, "", names.SandboxStart, at, 100*ms)
		s.Span(res, "caller", "create "+run, "x", task+"Create", at, 50*ms, linked(run, "root "+run))
		s.Span(res, "caller", "shim "+run, "create "+run, "shim start", at, 20*ms)
	}
	spans, all := stories(s)
	if !equal(spans, 3, 3) {
		t.Fatalf("stories of %v spans, want 3 and 3", spans)
	}
	for i, run := range []string{"1", "2"} {
		if got := build(all[i], s.Spans, Limits{}); string(all[i].Trace[:]) != string(traceBytes(run)) || got.Spans != 3 || len(got.Roots) != 1 {
			t.Errorf("run %s: trace %v, %d spans below %d roots", run, all[i].Trace, got.Spans, len(got.Roots))
		}
	}
}

// TestRuntimeOfWrapper: the runtime is the name that the wrapper was called by.
func TestRuntimeOfWrapper(t *testing.T) {
	s := &script{}
	s.Span(resourceOf("containerd-shim-kata-v2", attr(names.Runtime, "kata-qemu")), "s", "root", "", names.SandboxStart, 0, 100*ms)
	if _, all := stories(s); all[0].Runtime != "kata-qemu" {
		t.Errorf("the runtime is %q", all[0].Runtime)
	}
}

// expected marks a span as an expected failure, with or without a status.
func expected(code string, failed bool) change {
	return func(s *tracepb.Span) {
		s.Attributes = append(s.Attributes, attr(names.StatusCode, code), attr(names.Expected, "true"))
		if failed {
			s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
		}
	}
}

// TestExpected: an expected failure is neither counted nor drawn as an error, and its
// code is shown.
func TestExpected(t *testing.T) {
	s := kataPod()
	_, before := stories(s)
	s.Span(resourceOf("containerd-shim-kata-v2"), "s", "state", "root", task+"State", 300*ms, 2*ms, expected("NOT_FOUND", false))
	s.Span(resourceOf("containerd-shim-kata-v2"), "s", "state 2", "root", task+"State", 303*ms, 2*ms, expected("NOT_FOUND", true))
	_, after := stories(s)
	if after[0].Errors != before[0].Errors {
		t.Errorf("%d errors, before %d", after[0].Errors, before[0].Errors)
	}
	out := string(draw(t, s.Spans, Options{Width: 120, All: true}))
	if strings.Count(out, "Task/State NOT_FOUND") != 2 || strings.Count(out, "✗") != before[0].Errors {
		t.Errorf("the picture:\n%s", out)
	}
	colored := string(draw(t, s.Spans, Options{Width: 120, Color: true, All: true}))
	if !strings.Contains(colored, "\x1b[2mTask/State\x1b[0m") {
		t.Error("it is not dim")
	}
	// A guest cannot mark its own failure as expected.
	s.Span(resourceOf(names.AgentScope), "s", "claim", "root", "exec_process", 0, ms, expected("INTERNAL", true))
	if _, all := stories(s); all[0].Errors != before[0].Errors+1 {
		t.Errorf("%d errors, want %d: the guest's is one", all[0].Errors, before[0].Errors+1)
	}
}
