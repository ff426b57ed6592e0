package span

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

func TestBuilder(t *testing.T) {
	var s Span
	b := NewBuilder(Options{Keep: []string{"*"}, MaxLinks: 1}, nil)
	b.Begin(&s)
	put := func(key string, v Value) { b.Put([]byte(key), b.Want([]byte(key), len(key)), v) }
	put("text", TextValue([]byte("v"), 1))
	put("size", SizeValue(3))
	put(names.Container, TextValue([]byte("spoofed"), 7))
	put(string(bytes.Repeat([]byte("k"), MaxKey+1)), IntValue(1))
	b.Process([]byte("c 1"), []byte("e"))
	b.Process([]byte("c"), []byte("c"))
	for i := range 3 {
		b.BeginLink()
		b.LinkContext([16]byte{byte(i)}, [8]byte{1}, nil, 0)
		b.EndLink()
	}
	b.Status(tracepb.Status_STATUS_CODE_ERROR, []byte("no"), 2)
	b.End()
	m := message(t, &s)
	var keys []string
	for _, kv := range m.Attributes {
		keys = append(keys, kv.Key)
	}
	slices.Sort(keys)
	if got := strings.Join(keys, " "); got != "container.id container.id.size size.size text" {
		t.Errorf("attributes %s", got)
	}
	if !s.Failed || len(m.Links) != 1 || m.DroppedLinksCount != 2 || m.DroppedAttributesCount != 1 {
		t.Errorf("got %v", m)
	}
	if s.ContainerID != "c" || s.ExecID != "" {
		t.Errorf("ids %q, %q", s.ContainerID, s.ExecID)
	}
	if b.ID([]byte("a/b")) != "" || b.ID([]byte(strings.Repeat("a", 129))) != "" || b.ID([]byte("a-1.b_2")) != "a-1.b_2" {
		t.Error("an id is none, or the other way round")
	}
	s.ContainerClaimed = true
	if m := message(t, &s); m.Attributes[0].Key != names.ClaimedContainer {
		t.Errorf("claimed by %s", m.Attributes[0].Key)
	}
}
