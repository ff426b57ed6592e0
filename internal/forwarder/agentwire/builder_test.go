package agentwire

import (
	"bytes"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// By hand a span becomes what it becomes from the agent's wire.
func TestBuilderIsADecoder(t *testing.T) {
	opts := Options{MaxValue: 8, MaxAttributes: 6}
	payload := jsonSpan(`"name":"a long name","span_kind":"Client",` +
		`"attributes":{"map":{"source":{"String":"123456789"},"busy_ns":{"I64":-7},"code.x":{"F64":1.5},"flags":{"Bool":true},` +
		`"spec":{"String":"secret"},"container.id":{"String":"spoofed"},"mod":{"String":"too many"}}},` +
		`"events":{"queue":[{"name":"e","attributes":[{"key":"spec","value":{"String":"secret"}},{"key":"cid","value":{"String":"c"}}],"timestamp":{"secs_since_epoch":0,"nanos_since_epoch":5}}]},` +
		`"status_code":"Error","status_message":"no"`)
	var want, got Span
	if err := NewDecoder(opts).Decode([]byte(payload), &want); err != nil {
		t.Fatal(err)
	}

	b := NewBuilder(opts)
	for range 2 { // again, with the buffers of before
		key := func(s string) []byte { return []byte(s) }
		b.Begin(&got)
		got.TraceID, got.SpanID, got.ParentID, got.TraceFlags = want.TraceID, want.SpanID, want.ParentID, want.TraceFlags
		got.TraceState, got.Kind, got.Start, got.End = want.TraceState, tracepb.Span_SPAN_KIND_CLIENT, want.Start, want.End
		b.Name([]byte("a long name"))
		b.String(key("source"), []byte("123456789"))
		b.Int(key("busy_ns"), -7)
		b.Double(key("code.x"), 1.5)
		b.Bool(key("flags"), true)
		b.String(key("spec"), []byte("secret"))
		b.String(key("container.id"), []byte("spoofed"))
		b.String(key("mod"), []byte("too many"))
		b.BeginEvent()
		b.EventName([]byte("e"))
		b.String(key("spec"), []byte("secret"))
		b.String(key("cid"), []byte("c"))
		b.EndEvent(5)
		b.Status(tracepb.Status_STATUS_CODE_ERROR, []byte("no"))
		b.End()
	}
	w, err := want.Proto()
	if err != nil {
		t.Fatal(err)
	}
	g, err := got.Proto()
	if err != nil {
		t.Fatal(err)
	}
	if g.String() != w.String() || !got.Failed {
		t.Errorf("got  %v\nwant %v", g, w)
	}
}

func TestBuilderMakesText(t *testing.T) {
	var s Span
	b := NewBuilder(Options{Keep: []string{"*"}, MaxLinks: 1})
	b.Begin(&s)
	b.Name([]byte("a\xff\xfeb"))
	b.String([]byte("k\xff"), []byte("v"))
	b.String([]byte("bad"), []byte("\xff\xff"))
	b.String(bytes.Repeat([]byte("k"), 257), []byte("v"))
	b.Bytes([]byte("raw"), []byte{1, 2, 3})
	b.String([]byte("req"), []byte(`X { container_id: "c" }`))
	b.Process([]byte("c 1"), []byte("e"))
	b.Process([]byte("c"), []byte("c"))
	b.Link([16]byte{}, [8]byte{1})
	b.Link([16]byte{1}, [8]byte{1})
	b.Link([16]byte{2}, [8]byte{2})
	b.Status(tracepb.Status_STATUS_CODE_ERROR, []byte("\xffno"))
	b.End()
	m, err := s.Proto()
	if err != nil {
		t.Fatal(err)
	}
	if got := keys(m.Attributes); got != "bad.size container.id raw.size req" {
		t.Errorf("attributes %s", got)
	}
	if m.Name != "a?b" || m.Status.Message != "?no" || len(m.Links) != 1 || m.DroppedLinksCount != 2 || m.DroppedAttributesCount != 2 {
		t.Errorf("got %v", m)
	}
	if s.ContainerID != "c" || s.ExecID != "" {
		t.Errorf("ids %q, %q", s.ContainerID, s.ExecID)
	}
	if b.ID([]byte("a/b")) != "" || b.ID([]byte(strings.Repeat("a", 129))) != "" || b.ID([]byte("a-1.b_2")) != "a-1.b_2" {
		t.Error("an id is none, or the other way round")
	}
}
