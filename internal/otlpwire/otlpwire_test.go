package otlpwire

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// TestOpenClose: a message is the same as one whose length is known before.
func TestOpenClose(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1<<21 - 1, 1 << 21, 1 << 22} {
		body := bytes.Repeat([]byte{'x'}, n)
		b, at := Open([]byte("before"), SpanEvents)
		b = Close(append(b, body...), at)
		b = append(b, "behind"...)
		want := append(AppendBytes([]byte("before"), SpanEvents, body), "behind"...)
		if !bytes.Equal(b, want) {
			t.Errorf("a message of %d bytes is not the same", n)
		}
	}
}

// TestText: what is no UTF-8 is replaced.
func TestText(t *testing.T) {
	b := AppendText(nil, SpanName, "a\xffb")
	_, _, n := protowire.ConsumeTag(b)
	if s, _ := protowire.ConsumeString(b[n:]); s != "a\uFFFDb" {
		t.Errorf("%q", s)
	}
}
