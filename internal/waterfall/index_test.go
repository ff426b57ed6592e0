package waterfall

import (
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

func sandbox(id string) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: append(resourceOf("containerd-shim-runc-v2").Attributes[:1:1], attr(names.Sandbox, id))}
}

// stories returns the number of spans in each story, the oldest first.
func stories(s *script) (spans []int, all []*Story) {
	all = indexOf(s.Spans).Stories()
	for _, story := range all {
		spans = append(spans, story.Spans)
	}
	return spans, all
}

func equal(a []int, b ...int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestIndexJoins(t *testing.T) {
	spans, all := stories(joined())
	if !equal(spans, 6) {
		t.Fatalf("stories of %v spans, want one of 6", spans)
	}
	s := all[0]
	if string(s.Trace[:]) != string(traceBytes("s")) || len(s.Traces) != 3 || s.Traces[0] != s.Trace {
		t.Errorf("trace %v of %v; want the sandbox's first", s.Trace, s.Traces)
	}
	if s.Startup != 500*ms || s.Duration() != 920*ms || s.Runtime != "kata" || s.Name() != "default/web-0" {
		t.Errorf("story %+v", s)
	}
}

// TestIndexKeepsApart: neither a caller that starts two pods in one trace nor a reused
// id merges two stories.
func TestIndexKeepsApart(t *testing.T) {
	s := &script{}
	for i, id := range []string{"a", "b"} {
		at := time.Duration(i) * time.Second
		s.Span(sandbox(id), id, "root "+id, "", names.SandboxStart, at, 100*ms)
		s.Span(sandbox(id), "caller", "call "+id, "x", task+"Create", at, 50*ms, linked(id, "root "+id))
	}
	s.Span(sandbox("a"), "again", "root again", "", names.SandboxStart, time.Minute, 100*ms)
	spans, all := stories(s)
	if !equal(spans, 2, 2, 1) {
		t.Fatalf("stories of %v spans, want 2, 2, 1", spans)
	}
	for i, want := range []string{"a", "b", "a"} {
		if all[i].Sandbox != want {
			t.Errorf("story %d is of sandbox %q, want %q", i, all[i].Sandbox, want)
		}
		if got := build(all[i], s.Spans, Limits{}).Spans; got != all[i].Spans {
			t.Errorf("story %d selects %d spans, counted %d", i, got, all[i].Spans)
		}
	}
}

func TestIndexRepeated(t *testing.T) {
	s := kataPod()
	once, _ := stories(s)
	s.Spans = append(s.Spans, s.Spans...)
	if twice, _ := stories(s); !equal(twice, once...) {
		t.Errorf("delivered twice: stories of %v spans, once %v", twice, once)
	}
}

// TestIndexNameless: spans whose resource names no sandbox belong to the only
// sandbox of their trace.
func TestIndexNameless(t *testing.T) {
	s := &script{}
	s.Span(sandbox("a"), "t", "root", "", names.SandboxStart, 0, 100*ms)
	s.Span(&resourcepb.Resource{}, "t", "inner", "root", "inner", 0, 100*ms)
	spans, all := stories(s)
	if !equal(spans, 2) {
		t.Fatalf("stories of %v spans, want one of 2", spans)
	}
	if got := build(all[0], s.Spans, Limits{}).Spans; got != 2 {
		t.Errorf("%d spans selected, want 2", got)
	}
}

// TestStoryClock: the guest's clock does not decide a story's time.
func TestStoryClock(t *testing.T) {
	s := joined()
	s.Span(resourceOf(names.AgentScope), "s", "old", "root", "old", -50*365*24*time.Hour, 1)
	_, all := stories(s)
	if got := all[0].Start; !got.Equal(epoch) {
		t.Errorf("the story starts at %v, want %v", got, epoch)
	}
}

// TestStoryRuntime: a runtime's own spans do not name it.
func TestStoryRuntime(t *testing.T) {
	s := &script{}
	s.Span(resourceOf(names.RuntimeScope), "s", "of", "create", "root", 0, 1)
	s.Span(resourceOf("containerd-shim-runc-v2"), "s", "root", "", names.SandboxStart, 0, 100*ms)
	if _, all := stories(s); all[0].Runtime != "runc" {
		t.Errorf("the runtime is %q", all[0].Runtime)
	}
}

// TestStoryFailed: a sandbox that failed to start has no startup time.
func TestStoryFailed(t *testing.T) {
	s := &script{}
	s.Span(sandbox("a"), "s", "root", "", names.SandboxStart, 0, 100*ms, wrong("UNKNOWN", "no task was started"))
	if _, all := stories(s); all[0].Startup != 0 || all[0].Errors != 1 {
		t.Errorf("startup %v, %d errors", all[0].Startup, all[0].Errors)
	}
}

func TestRuntimeName(t *testing.T) {
	for service, want := range map[string]string{
		"containerd-shim-runc-v2": "runc", "containerd-shim-kata-qemu-v2": "kata-qemu",
		"containerd-shim-runsc-v1": "runsc", "other": "other", "containerd-shim-v2": "v2",
	} {
		if got := runtimeName(&resource{service: service}); got != want {
			t.Errorf("runtimeName(%q) = %q, want %q", service, got, want)
		}
	}
}
