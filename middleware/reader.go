package middleware

import (
	"io"
	"sync"

	"github.com/shimtrace/shimtrace/middleware/wire"
)

const (
	// smallBuffer is the size of a connection's buffers while nothing larger
	// passes: most requests and answers fit, and an idle connection costs little.
	smallBuffer = 4 << 10
	// largeBuffer is the size of the buffer for who has much to say.
	largeBuffer = 64 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// frameReader reads whole frames into a buffer that grows with what has arrived,
// never with what a header announces.
type frameReader struct {
	src   io.Reader
	small *[smallBuffer]byte
	large *[largeBuffer]byte // nil while nothing large passes
	buf   []byte             // small[:], large[:], or one that is larger still
	r, w  int                // unread bytes are buf[r:w]
}

func newFrameReader(src io.Reader) *frameReader {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	return &frameReader{src: src, small: small, buf: small[:]}
}

// release gives the buffers back; the reader is not used after it.
func (f *frameReader) release() {
	f.shrink()
	smallBuffers.Put(f.small)
	f.small, f.buf = nil, nil
}

// shrink goes back to the small buffer.
func (f *frameReader) shrink() {
	if f.large != nil {
		largeBuffers.Put(f.large)
		f.large, f.buf = nil, f.small[:]
	}
}

// buffered returns the bytes that were read and not discarded yet.
func (f *frameReader) buffered() []byte { return f.buf[f.r:f.w] }

// peek returns the next n bytes without taking them. On error it returns none;
// what has arrived stays buffered.
func (f *frameReader) peek(n int) ([]byte, error) {
	for f.w-f.r < n {
		f.makeRoom(n)
		m, err := f.src.Read(f.buf[f.w:])
		f.w += m
		if err != nil && f.w-f.r < n {
			return nil, err
		}
	}
	return f.buf[f.r : f.r+n], nil
}

// makeRoom makes space for at least one more byte of the n that are to be
// buffered from r on.
func (f *frameReader) makeRoom(n int) {
	if f.r+n > len(f.buf) && f.r > 0 {
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
	}
	if f.w < len(f.buf) {
		return
	}
	var bigger []byte
	if f.large == nil {
		f.large = largeBuffers.Get().(*[largeBuffer]byte)
		bigger = f.large[:]
	} else {
		bigger = make([]byte, min(4*len(f.buf), n))
	}
	copy(bigger, f.buf)
	f.buf = bigger
}

// discard takes n buffered bytes.
func (f *frameReader) discard(n int) {
	f.r += n
	if f.r == f.w {
		f.r, f.w = 0, 0
		f.shrink()
	}
}

// copyTo passes n bytes on to dst as they arrive, without holding them.
func (f *frameReader) copyTo(dst io.Writer, n int64) error {
	if part := f.buf[f.r:min(int64(f.w), int64(f.r)+n)]; len(part) > 0 {
		if _, err := dst.Write(part); err != nil {
			return err
		}
		n -= int64(len(part))
		f.discard(len(part))
	}
	if n == 0 {
		return nil
	}
	large := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(large)
	for n > 0 {
		m, err := f.src.Read(large[:min(n, largeBuffer)])
		if m > 0 {
			if _, err := dst.Write(large[:m]); err != nil {
				return err
			}
			n -= int64(m)
		}
		if err != nil && n > 0 {
			return err
		}
	}
	return nil
}

// answerReader cuts a stream of bytes that is forwarded by someone else into
// frames, of which it keeps no more than the beginning.
type answerReader struct {
	head    [wire.HeaderLen]byte
	have    int   // bytes of head
	left    int64 // bytes of the payload still to come
	payload []byte
}

// within reports whether a frame has begun and is not complete.
func (a *answerReader) within() bool { return a.have > 0 }

// maxAnswer is how much of an answer's payload is looked at, in bytes: the
// status and the well-known fields.
const maxAnswer = 4 << 10

// feed calls f for each frame that chunk completes, with the beginning of its
// payload, valid during the call.
func (a *answerReader) feed(chunk []byte, f func(h wire.Header, payload []byte)) {
	for len(chunk) > 0 {
		if a.have < wire.HeaderLen {
			n := copy(a.head[a.have:], chunk)
			a.have += n
			chunk = chunk[n:]
			if a.have < wire.HeaderLen {
				return
			}
			a.left = int64(wire.ParseHeader(a.head[:]).Length)
			a.payload = a.payload[:0]
		}
		n := int(min(a.left, int64(len(chunk))))
		part := chunk[:n]
		chunk = chunk[n:]
		a.left -= int64(n)
		if a.left == 0 && len(a.payload) == 0 {
			a.have = 0
			f(wire.ParseHeader(a.head[:]), part[:min(n, maxAnswer)])
			continue
		}
		a.payload = append(a.payload, part[:min(n, maxAnswer-len(a.payload))]...)
		if a.left == 0 {
			a.have = 0
			f(wire.ParseHeader(a.head[:]), a.payload)
		}
	}
}
