package span

import (
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// edited has parts to edit, and parts that must not change.
func edited(tb testing.TB) *Span {
	s := new(Span)
	b := NewBuilder(Options{Keep: []string{"*"}}, nil)
	b.Begin(s)
	s.TraceID, s.SpanID = [16]byte{1}, [8]byte{2}
	put := func(key string) { b.Put([]byte(key), b.Want([]byte(key), len(key)), IntValue(7)) }
	put("before")
	for i := range 4 {
		b.BeginEvent()
		b.EventName([]byte("e"), 1)
		if i > 0 {
			b.EventTime(uint64(i))
		}
		put("of an event")
		b.EndEvent()
		b.BeginLink()
		b.LinkContext([16]byte{byte(i + 1)}, [8]byte{byte(i + 1)}, []byte("a=b"), 1)
		put("of a link")
		b.EndLink()
	}
	b.DroppedLinks(3)
	b.Status(tracepb.Status_STATUS_CODE_ERROR, []byte("no"), 2)
	b.End()
	return s
}

// TestEdit: editing the bytes equals editing the message.
func TestEdit(t *testing.T) {
	s := edited(t)
	want := message(t, s)
	for i, e := range want.Events {
		if e.TimeUnixNano != uint64(i) {
			t.Errorf("event %d is at %d", i, e.TimeUnixNano)
		}
		e.TimeUnixNano += 1000
	}
	want.Links = []*tracepb.Span_Link{want.Links[0], want.Links[3]}
	want.Links[1].TraceId[15] = 9
	want.DroppedLinksCount = 3 + 2
	before := s.Clone()
	s.MoveEvents(func(at uint64) uint64 { return at + 1000 })
	s.KeepLinks(func(id *[16]byte) bool {
		if id[0] == 4 {
			id[15] = 9
		}
		return id[0] == 1 || id[0] == 4
	})
	if got := message(t, s); !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if proto.Equal(message(t, before), want) {
		t.Error("a clone is edited with the span")
	}
	s.KeepLinks(func(*[16]byte) bool { return false })
	if m := message(t, s); len(m.Links) != 0 || m.DroppedLinksCount != 7 {
		t.Errorf("%d links, %d dropped", len(m.Links), m.DroppedLinksCount)
	}
}

// A link may hold several trace ids, of which readers take the last.
func TestLinkOfManyTraces(t *testing.T) {
	s := new(Span)
	b := NewBuilder(Options{}, nil)
	b.Begin(s)
	b.BeginLink()
	b.LinkContext([16]byte{1}, [8]byte{1}, nil, 0)
	b.LinkContext([16]byte{2}, [8]byte{1}, nil, 0)
	b.EndLink()
	b.End()
	s.KeepLinks(func(id *[16]byte) bool { return id[0] == 1 })
	if m := message(t, s); len(m.Links) != 0 || m.DroppedLinksCount != 1 {
		t.Errorf("%v", m)
	}
}
