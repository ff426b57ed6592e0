package waterfall

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

// program is the resource of another program, which claims what it likes.
func program(service string) *resourcepb.Resource {
	return &resourcepb.Resource{Attributes: resourceOf(service).Attributes[:1:1]}
}

// pictured returns the outlines of the stories, of ours and of what others have posted.
func pictured(t *testing.T, ours, posted *script) (stories, others []*Story, outlines []string) {
	t.Helper()
	x := indexOf(ours.Spans)
	if err := x.AddPosted(message(posted.Spans), recorded); err != nil {
		t.Fatal(err)
	}
	stories = x.Stories()
	others = x.Others()
	for _, s := range append(stories[:len(stories):len(stories)], others...) {
		b := NewBuilder(s, Limits{}, true)
		if err := b.Add(message(ours.Spans)); err != nil {
			t.Fatal(err)
		}
		if err := b.AddPosted(message(posted.Spans)); err != nil {
			t.Fatal(err)
		}
		tree := b.Tree()
		outlines = append(outlines, outline(tree.Roots))
		if n := strings.Count(outlines[len(outlines)-1], " ") + 1; s.Spans > tree.Spans || tree.Omitted != 0 || n == 0 {
			t.Errorf("%d spans in the story, %d in the tree", s.Spans, tree.Spans)
		}
	}
	for order, all := range arrivals(ours, posted) {
		for i, s := range stories {
			if got := grown(t, s.Sandbox, all); got != outlines[i] {
				t.Errorf("looked at while it grows, %s, %s is\n%s\nwant %s", order, s.Sandbox, got, outlines[i])
			}
		}
	}
	return stories, others, outlines
}

// podIn makes a pod whose calls are in the caller's trace.
func podIn(ours, posted *script, id, trace, above string, at time.Duration) {
	ours.Span(sandbox(id), "s "+id, "root "+id, "", names.SandboxStart, at+20*ms, 60*ms)
	ours.Span(sandbox(id), trace, "create "+id, "client "+id, task+"Create", at+31*ms, 8*ms, linked("s "+id, "root "+id))
	cri := program("containerd")
	posted.Span(cri, trace, "run "+id, above, "RunPodSandbox", at, 100*ms)
	posted.Span(cri, trace, "network "+id, "run "+id, "network", at+10*ms, 5*ms)
	posted.Span(cri, trace, "client "+id, "run "+id, "client", at+30*ms, 10*ms)
	// runc's shim traces itself.
	posted.Span(program("containerd-shim-"+id), trace, "shim "+id, "create "+id, "runc", at+32*ms, 2*ms)
}

// TestPostedCaller: what a caller's programs post is above, beside and below the calls,
// with one root.
func TestPostedCaller(t *testing.T) {
	ours, posted := &script{}, &script{}
	podIn(ours, posted, "a", "t", "", 0)
	posted.Span(program("kubelet"), "housekeeping", "h", "", "housekeeping", 0, time.Hour)
	stories, others, got := pictured(t, ours, posted)
	if want := "RunPodSandbox(network →sandbox start client(Task/Create(runc)))"; len(stories) != 1 || got[0] != want {
		t.Errorf("%d stories: %s\nwant %s", len(stories), got, want)
	}
	s := stories[0]
	if s.Spans != 6 || s.Sandbox != "a" || s.Start.Sub(epoch) != 0 || s.Duration() != 100*ms || s.Startup != 60*ms || len(s.Traces) != 2 {
		t.Errorf("story %+v", s)
	}
	if len(others) != 1 || got[1] != "housekeeping" {
		t.Errorf("%d others: %s", len(others), got[1:])
	}
}

// TestPostedJoinSandbox: the sandbox's trace, of which the calls are part, hangs where
// it happened.
func TestPostedJoinSandbox(t *testing.T) {
	ours, posted := &script{}, &script{}
	ours.Span(sandbox("a"), "s", "root", "", names.SandboxStart, 20*ms, 60*ms)
	ours.Span(sandbox("a"), "s", "create", "root", task+"Create", 31*ms, 8*ms, linked("t", "client"))
	posted.Span(program("containerd"), "t", "run", "", "RunPodSandbox", 0, 100*ms)
	posted.Span(program("containerd"), "t", "client", "run", "client", 30*ms, 10*ms)
	if _, _, got := pictured(t, ours, posted); got[0] != "RunPodSandbox(→sandbox start(Task/Create) client)" {
		t.Error(got)
	}
}

// TestPostedShared: in a trace of several pods, each story has what leads to its own
// spans, and what is below that.
func TestPostedShared(t *testing.T) {
	ours, posted := &script{}, &script{}
	posted.Span(program("controller"), "t", "rollout", "", "rollout", 0, time.Second)
	posted.Span(program("controller"), "t", "plan", "rollout", "plan", 0, ms)
	podIn(ours, posted, "a", "t", "rollout", 10*ms)
	podIn(ours, posted, "b", "t", "rollout", 200*ms)
	_, _, got := pictured(t, ours, posted)
	want := "rollout(plan RunPodSandbox(network →sandbox start client(Task/Create(runc))))"
	if len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("%q\nwant twice %q", got, want)
	}
}

// TestPostedLinks: traces are joined by links, whichever side has them; but not several
// pods' by one of others.
func TestPostedLinks(t *testing.T) {
	ours, posted := &script{}, &script{}
	ours.Span(sandbox("a"), "a", "root a", "", names.SandboxStart, 0, 60*ms, linked("claim", "c"))
	ours.Span(sandbox("b"), "b", "root b", "", names.SandboxStart, 100*ms, 60*ms)
	posted.Span(program("controller"), "claim", "c", "", "claim", 0, ms, linked("client", "x"))
	posted.Span(program("client"), "client", "x", "", "client", 0, ms)
	posted.Span(program("watcher"), "watch", "w", "", "watch", 110*ms, ms, linked("b", "root b"))
	posted.Span(program("queue"), "queue", "q", "", "queue", 0, time.Hour, linked("a", "root a"), linked("b", "root b"))
	stories, others, got := pictured(t, ours, posted)
	if got[0] != "client(→claim(→sandbox start))" || got[1] != "sandbox start(→watch)" {
		t.Errorf("%q", got)
	}
	if len(stories) != 2 || len(others) != 1 || got[2] != "queue" {
		t.Errorf("%d stories, %d others: %q", len(stories), len(others), got)
	}
}

// TestPostedAnnotation: a root below what the pod's annotation names, whether that is
// there or not.
func TestPostedAnnotation(t *testing.T) {
	ours, none := &script{}, &script{}
	ours.Span(sandbox("a"), "t", "root", "claim", names.SandboxStart, 20*ms, 60*ms)
	ours.Span(sandbox("a"), "t", "create", "root", task+"Create", 30*ms, 8*ms)
	if _, _, got := pictured(t, ours, none); got[0] != "?(sandbox start(Task/Create))" {
		t.Error(got)
	}
	posted := &script{}
	posted.Span(program("controller"), "t", "claim", "", "claim", 0, time.Second)
	if _, _, got := pictured(t, ours, posted); got[0] != "claim(sandbox start(Task/Create))" {
		t.Error(got)
	}
	linkedTo := &script{}
	linkedTo.Span(sandbox("a"), "s", "root", "", names.SandboxStart, 20*ms, 60*ms, linked("gone", "x"))
	if _, _, got := pictured(t, linkedTo, none); got[0] != "sandbox start" {
		t.Error(got)
	}
}

// TestPostedClaims: a program is nobody else, whatever it says.
func TestPostedClaims(t *testing.T) {
	ours, posted := &script{}, &script{}
	podIn(ours, posted, "a", "t", "", 0)
	// These have the scopes and resources of the shim and the agent, with a's id.
	liars := &script{}
	liars.Span(sandbox("a"), "lies", "root", "", names.SandboxStart, 0, 9*time.Hour)
	liars.Span(resourceOf(names.AgentScope), "lies", "agent", "root", "create_container", 0, time.Hour, with(attr(names.Container, "c"), attr(names.ContainerName, "mine")))
	liars.Span(sandbox("b"), "more lies", "root b", "", names.SandboxStart, 0, time.Hour)
	posted.Spans = append(posted.Spans, liars.Spans...)
	stories, others, got := pictured(t, ours, posted)
	if len(stories) != 1 || len(others) != 2 || stories[0].Duration() != 100*ms || len(stories[0].Containers) != 0 {
		t.Errorf("%d stories, %d others: %+v", len(stories), len(others), stories[0])
	}
	if strings.Contains(got[0], "create_container") {
		t.Error(got[0])
	}
	for _, s := range others {
		if s.Sandbox != "" || s.Pod != "" || s.Startup != 0 || s.Runtime != "" {
			t.Errorf("%+v", s)
		}
	}
}

// TestPostedFlood: programs without end take bounded memory, and no story away.
func TestPostedFlood(t *testing.T) {
	ours, posted := &script{}, &script{}
	podIn(ours, posted, "a", "t", "", 0)
	x := indexOf(ours.Spans)
	flood := func(n int) {
		var spans []*tracepb.Span
		for i := range 1000 {
			id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(n*1000+i+1))
			spans = append(spans, &tracepb.Span{TraceId: id, SpanId: id[8:], Name: "flood", StartTimeUnixNano: 1, EndTimeUnixNano: 2})
		}
		if err := x.AddPosted(message([]*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}), recorded); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 50 {
		flood(n)
	}
	if err := x.AddPosted(message(posted.Spans), recorded); err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		flood(50 + n)
	}
	if n := len(x.posted.traces); n > 2*maxPosted {
		t.Errorf("%d traces are kept", n)
	}
	stories := x.Stories()
	if len(stories) != 1 || stories[0].Spans != 6 || x.Outside() == 0 {
		t.Errorf("%d stories, %d spans left out", len(stories), x.Outside())
	}
}

// TestPostedJSON: the spans of other programs are in the document, and in no other
// story's.
func TestPostedJSON(t *testing.T) {
	ours, posted := &script{}, &script{}
	podIn(ours, posted, "a", "t", "", 0)
	podIn(ours, posted, "b", "u", "", time.Second)
	stories, _, _ := pictured(t, ours, posted)
	for _, s := range stories {
		var out bytes.Buffer
		j := NewJSONWriter(&out)
		if err := j.Add(s, message(ours.Spans)); err != nil {
			t.Fatal(err)
		}
		if err := j.AddPosted(s, message(posted.Spans)); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), `"RunPodSandbox"`); n != 1 {
			t.Errorf("RunPodSandbox is there %d times", n)
		}
	}
}

// FuzzPosted makes spans of two sandboxes and of other programs from bytes, with so few
// ids that circles, shared traces and missing parents are common: every story keeps all
// of its own spans, once, and nothing of the other's.
func FuzzPosted(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"))
	f.Add([]byte("abacadaeafbcbdbebfcdcecfdedfef"))
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, posted := &script{}, &script{}
		ids := []string{"", "a", "b", "c", "d", "e", "f", "g"}
		for i := 0; len(data) >= 4 && i < 48; data, i = data[4:], i+1 {
			to, res, name := posted, program("p"), "posted"
			if data[1]&0x80 != 0 {
				id := ids[1+data[0]>>7]
				to, res, name = ours, sandbox(id), []string{names.SandboxStart, task + "Create"}[data[1]>>6&1]
			}
			id, parent, link := ids[data[0]&7], ids[data[0]>>3&7], ids[data[1]&7]
			to.Span(res, ids[data[0]>>6], id, parent, name, time.Duration(data[2]), time.Duration(data[3]), linked(ids[data[1]>>3&3], link))
		}
		x := indexOf(ours.Spans)
		if err := x.AddPosted(message(posted.Spans), recorded); err != nil {
			t.Fatal(err)
		}
		stories := x.Stories()
		for _, s := range append(stories, x.Others()...) {
			b := NewBuilder(s, Limits{}, false)
			if err := b.Add(message(ours.Spans)); err != nil {
				t.Fatal(err)
			}
			if err := b.AddPosted(message(posted.Spans)); err != nil {
				t.Fatal(err)
			}
			tree := b.Tree()
			if drawn(tree.Roots) != tree.Spans || tree.Spans < s.Spans {
				t.Fatalf("%d spans are drawn, %d in the tree, %d in the story", drawn(tree.Roots), tree.Spans, s.Spans)
			}
		}
	})
}
