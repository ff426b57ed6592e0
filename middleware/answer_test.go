package middleware

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// stream returns frames with payloads of the given lengths.
func stream(lengths ...int) (b []byte) {
	for i, n := range lengths {
		b = wire.Header{Length: uint32(n), Stream: uint32(i), Type: wire.TypeResponse}.Append(b)
		b = append(b, bytes.Repeat([]byte{byte(i)}, n)...)
	}
	return b
}

// chunks reads as many bytes at a time as sizes says, by turns.
type chunks struct {
	r     io.Reader
	sizes []byte
	turn  int
}

func (c *chunks) Read(b []byte) (int, error) {
	n := 1
	if len(c.sizes) > 0 {
		n += int(c.sizes[c.turn%len(c.sizes)])
		c.turn++
	}
	return c.r.Read(b[:min(n, len(b))])
}

// FuzzReaders cuts a stream of bytes in every way, and reads it as the relay does
// in either direction: not a byte may be lost or seen in the wrong frame.
func FuzzReaders(f *testing.F) {
	f.Add(stream(0, 5, 5000, 0, 0, 20000, 1), []byte{0})
	f.Add(stream(3, 9000)[:5000], []byte{200, 3, 90})
	f.Add([]byte("\xff\xff\xff\xff then nothing like it"), []byte{7})
	f.Add(stream(4086, 4087, 4096, 8192, 1), []byte{255, 254})
	f.Fuzz(func(t *testing.T, in, sizes []byte) {
		frames, rest := cut(in)
		readRequests(t, in, &chunks{r: bytes.NewReader(in), sizes: sizes}, frames, rest)
		readAnswers(t, &chunks{r: bytes.NewReader(in), sizes: sizes}, frames)
	})
}

// cut cuts in into frames, the plain way.
func cut(in []byte) (frames [][]byte, rest []byte) {
	for len(in) >= wire.HeaderLen {
		n := wire.HeaderLen + int(wire.ParseHeader(in).Length)
		if n > len(in) {
			break
		}
		frames = append(frames, in[:n])
		in = in[n:]
	}
	return frames, in
}

// readRequests reads every other frame whole, and passes the others on.
func readRequests(t *testing.T, in []byte, src io.Reader, frames [][]byte, rest []byte) {
	var out bytes.Buffer
	rd := handover.NewStream(src, &out)
	defer rd.Release()
	for i, want := range frames {
		head, err := rd.Peek(wire.HeaderLen)
		if err != nil || !bytes.Equal(head, want[:wire.HeaderLen]) {
			t.Fatalf("frame %d: header %x, %v", i, head, err)
		}
		if i%2 == 0 {
			if err := copyOn(rd, uint64(len(want))); err != nil {
				t.Fatalf("frame %d: %v", i, err)
			}
			continue
		}
		got, err := rd.Peek(len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: %d bytes, %v, want %d", i, len(got), err, len(want))
		}
		out.Write(got)
		rd.Discard(len(got), handover.Mark{})
	}
	if _, err := rd.Peek(len(rest) + 1); !errors.Is(err, io.EOF) {
		t.Fatalf("after all frames: %v", err)
	}
	out.Write(rd.Buffered())
	if !bytes.Equal(out.Bytes(), in) {
		t.Fatalf("%d bytes became %d", len(in), out.Len())
	}
}

func readAnswers(t *testing.T, src io.Reader, frames [][]byte) {
	var a answerReader
	buf := make([]byte, 300)
	i := 0
	for {
		n, err := src.Read(buf)
		a.feed(buf[:n], func(h wire.Header, payload []byte) {
			want := frames[i]
			if h != wire.ParseHeader(want) || !bytes.Equal(payload, want[wire.HeaderLen:min(len(want), wire.HeaderLen+maxAnswer)]) {
				t.Fatalf("frame %d: %+v with %d bytes, want %d", i, h, len(payload), len(want))
			}
			i++
		})
		if err != nil {
			break
		}
	}
	if i != len(frames) {
		t.Fatalf("%d frames, want %d", i, len(frames))
	}
	if cap(a.payload) > 2*maxAnswer {
		t.Fatalf("%d bytes kept", cap(a.payload))
	}
}
