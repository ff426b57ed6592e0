package span

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

func full() *Span {
	s := &Span{
		TraceID: [16]byte{1, 15: 2}, SpanID: [8]byte{3, 7: 4}, ParentID: [8]byte{5},
		TraceState: "k=v", TraceFlags: 1, Name: "StartContainer", Kind: tracepb.Span_SPAN_KIND_INTERNAL,
		Start: 1_000_000_001, End: 1<<63 - 1, Failed: true, ContainerID: "c", ExecID: "e",
		Method: "Start", Sandbox: "sb",
	}
	s.AddString("mod", "ü")
	s.AddBool("kept", true)
	s.AddLink([16]byte{9}, [8]byte{9})
	return s
}

func bare() *Span {
	return &Span{TraceID: [16]byte{1}, SpanID: [8]byte{2}}
}

func TestRoundTrip(t *testing.T) {
	for name, s := range map[string]*Span{"full": full(), "bare": bare()} {
		prefix := []byte("before")
		b := s.Append(bytes.Clone(prefix))
		if !bytes.HasPrefix(b, prefix) {
			t.Fatalf("%s: Append overwrote what was there", name)
		}
		b = b[len(prefix):]
		got, err := Parse(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		clear(b) // Parse must have copied it
		if !reflect.DeepEqual(got, s) {
			t.Errorf("%s: got %+v, want %+v", name, got, s)
		}
		if before, after := message(t, s), message(t, got); !proto.Equal(before, after) {
			t.Errorf("%s: got %v, want %v", name, after, before)
		}
	}
}

// A later version may have unknown fields.
func TestUnknownFields(t *testing.T) {
	s := full()
	b := s.Append(nil)
	b = protowire.AppendTag(b, 77, protowire.BytesType)
	b = protowire.AppendString(b, "new")
	got, err := Parse(b)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDamage(t *testing.T) {
	whole := full().Append(nil)
	otlp := func(b ...byte) []byte {
		return append(protowire.AppendVarint([]byte{1<<3 | 2}, uint64(len(b))), b...)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want string
	}{
		"nothing":              {nil, "there is no span in it"},
		"no ids":               {(&Span{}).Append(nil), "there is no span in it"},
		"a span id of zeros":   {(&Span{TraceID: [16]byte{1}}).Append(nil), "there is no span in it"},
		"too long":             {make([]byte, MaxSize+1), "longer than"},
		"cut":                  {whole[:len(whole)-3], "field 5 at byte"},
		"an event as a number": {otlp(11<<3, 1), "field 11 at byte 0: another wire type"},
		"attributes of noise":  {otlp(1<<3|2, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 9<<3|2, 2, 0xff, 0xff), "field 9 at byte 18: byte 0: "},
		"a length of its own":  {[]byte{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f}, "field 1 at byte 0"},
		"method as a number":   {[]byte{2 << 3, 1}, "field 2 at byte 0: another wire type"},
		"failed as text":       {[]byte{6<<3 | 2, 0}, "field 6 at byte 0: another wire type"},
		"sandbox not text":     {[]byte{3<<3 | 2, 1, 0xff}, "field 3 at byte 0: not UTF-8"},
		"container too long":   {append([]byte{4<<3 | 2, 0x81, 1}, make([]byte, 129)...), "field 4 at byte 0: not UTF-8 of at most 128 bytes"},
		"trace id too short":   {otlp(1<<3|2, 1, 1), "field 1 at byte 0: field 1 at byte 0: an id of another length"},
		"name as a number":     {otlp(5<<3, 1), "field 5 at byte 0: another wire type"},
		"name not text":        {otlp(5<<3|2, 1, 0xff), "field 5 at byte 0: not UTF-8"},
		"kind too large":       {otlp(6<<3, 0xff, 0xff, 0xff, 0xff, 0x7f), "field 6 at byte 0: out of range"},
		"flags too large":      {otlp(16<<3&0x7f|5|0x80, 1, 0, 1, 0, 0), "field 16 at byte 0: out of range"},
		"attributes cut":       {otlp(9<<3|2, 9), "field 9 at byte 0"},
	} {
		_, err := Parse(tc.b)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
}

// FuzzParse: any input gives an error, or a span that Append writes as it was read.
func FuzzParse(f *testing.F) {
	f.Add(full().Append(nil))
	f.Add(bare().Append(nil))
	f.Add(edited(f).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		s, err := Parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the bytes were changed")
		}
		if err != nil {
			return
		}
		again := s.Append(nil)
		got, err := Parse(again)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("got %+v (%v), want %+v", got, err, s)
		}
		s.MoveEvents(func(t uint64) uint64 { return t + 1 })
		s.KeepLinks(func(id *[16]byte) bool { id[0]++; return id[0]&1 == 0 })
		s.AddBool("kept", true)
		message(t, s) // fails if it is invalid
		if len(again) > 2*len(b)+64 {
			t.Fatalf("%d bytes became %d", len(b), len(again))
		}
	})
}

func BenchmarkRoundTrip(b *testing.B) {
	buf := full().Append(nil)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		s, err := Parse(buf)
		if err != nil {
			b.Fatal(err)
		}
		buf = s.Append(buf[:0])
	}
}
