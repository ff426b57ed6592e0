package handover

import (
	"errors"
	"io"
	"net"
	"sync"
)

const (
	// smallBuffer is the size of a stream's buffer while nothing larger passes: most
	// requests and answers fit, and an idle connection costs little.
	smallBuffer = pageSize
	// largeBuffer is how much is read at once.
	largeBuffer = 64 << 10
	// joinLimit is the length in bytes up to which parts on the heap are written as one.
	joinLimit = 4 << 10
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// Stream is one direction of a connection: what was read of it and not taken yet. It is
// not safe for concurrent use.
type Stream struct {
	from io.Reader
	to   io.Writer
	buf  []byte
	r, w int // unread bytes are buf[r:w]
	mark Mark

	before func() error // nil: nothing is around reads
	after  func(n int)

	shared *shared // nil: on the heap, which the rest is for
	small  *[smallBuffer]byte
	large  *[largeBuffer]byte // nil while nothing large passes
	spare  []byte             // larger than that; nil unless the last frame needed it
	last   int                // bytes that came with the last read of Next
	joined []byte
}

// NewStream returns the stream of what is read from from, to be written to to. Its buffer
// grows with what has arrived, and is on the heap.
func NewStream(from io.Reader, to io.Writer) *Stream {
	small := smallBuffers.Get().(*[smallBuffer]byte)
	return &Stream{from: from, to: to, small: small, buf: small[:]}
}

// Release gives up the buffer; the stream is not used after it.
func (s *Stream) Release() {
	if s.shared == nil {
		s.shrink()
		smallBuffers.Put(s.small)
	}
	s.small, s.buf, s.spare = nil, nil, nil
}

// Buffered returns the bytes that were read and not discarded yet.
func (s *Stream) Buffered() []byte { return s.buf[s.r:s.w] }

// Mark is where in a frame the first of the buffered bytes is, as it was said with
// Discard.
func (s *Stream) Mark() Mark { return s.mark }

// Peek returns the next n bytes, at most maxPeek, without taking them; they are valid
// until the next call. On error it returns none, and what has arrived stays buffered.
func (s *Stream) Peek(n int) ([]byte, error) {
	if s.last > 0 {
		s.last = 0
		if s.r == s.w {
			s.shrink()
		}
	}
	if s.shared != nil && n > maxPeek {
		return nil, errNoRoom
	}
	for s.w-s.r < n {
		s.makeRoom(n)
		m, err := s.read(n)
		s.w += m
		if err != nil && s.w-s.r < n {
			return nil, err
		}
	}
	return s.buf[s.r : s.r+n], nil
}

// Next returns the buffered bytes, after it has waited for some if there were none. On
// error there may be some as well.
func (s *Stream) Next() ([]byte, error) {
	var err error
	for s.r == s.w && err == nil {
		if s.last == smallBuffer && s.shared == nil && s.large == nil {
			s.grow(0)
		}
		s.last, err = s.read(1)
		s.w += s.last
	}
	return s.buf[s.r:s.w], err
}

// Around has before called before every read, which fails if that does, and after with
// the number of bytes that came.
func (s *Stream) Around(before func() error, after func(n int)) { s.before, s.after = before, after }

// read reads once behind what is buffered. More than the n that are wanted may come.
func (s *Stream) read(n int) (got int, err error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, err
		}
		defer func() { s.after(got) }()
	}
	if s.shared != nil {
		return s.shared.read(s, n)
	}
	return s.from.Read(s.buf[s.w:])
}

// makeRoom makes space for at least one more byte of the n that are to be buffered from
// r on.
func (s *Stream) makeRoom(n int) {
	if s.shared != nil {
		s.shared.makeRoom(s, n)
		return
	}
	if s.r+n > len(s.buf) && s.r > 0 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	if s.w == len(s.buf) {
		s.grow(n)
	}
}

// grow makes the buffer larger, for at most n bytes.
func (s *Stream) grow(n int) {
	bigger := s.spare
	switch {
	case s.large == nil:
		s.large = largeBuffers.Get().(*[largeBuffer]byte)
		bigger = s.large[:]
	case len(bigger) <= len(s.buf):
		bigger = make([]byte, min(4*len(s.buf), n))
	}
	copy(bigger, s.buf)
	s.buf = bigger
}

// shrink goes back to the small buffer. A stream that is only read keeps a buffer larger
// than the shared ones until a frame needs less.
func (s *Stream) shrink() {
	if s.spare = nil; s.to == nil && len(s.buf) > largeBuffer {
		s.spare = s.buf
	}
	if s.large != nil {
		largeBuffers.Put(s.large)
		s.large, s.buf = nil, s.small[:]
	}
}

// Discard takes n buffered bytes, for which nothing is to be written any more. The mark
// says where in a frame that leads.
func (s *Stream) Discard(n int, m Mark) {
	s.mark = m
	s.r += n
	if s.shared != nil {
		s.shared.discard(n, m)
	}
	if s.r < s.w {
		return
	}
	s.r, s.w = 0, 0
	switch {
	case s.shared != nil:
		s.shared.rewind()
	case s.last < smallBuffer:
		s.shrink()
	}
}

// Free returns room, of length 0, to which those parts of a write are appended that are not
// buffered bytes. It is valid until something is read. On the heap it is the room of b.
func (s *Stream) Free(b []byte) []byte {
	if s.shared != nil {
		return s.buf[s.w:s.w]
	}
	return b[:0]
}

// Write writes the parts, which are buffered bytes or appended to what Free returned, in
// one piece where the system can; it may consume them. They stand for the next n
// buffered bytes, which are to be discarded afterwards. The error is the connection's.
func (s *Stream) Write(n int, parts ...[]byte) error {
	total := 0
	for _, p := range parts {
		total += len(p)
	}
	switch {
	case s.shared != nil:
		return s.shared.write(s, n, total, parts)
	case len(parts) > 1 && total > joinLimit:
		buffers := net.Buffers(parts)
		_, err := buffers.WriteTo(s.to)
		return err
	case len(parts) > 1:
		s.joined = s.joined[:0]
		for _, p := range parts {
			s.joined = append(s.joined, p...)
		}
		_, err := s.to.Write(s.joined)
		return err
	}
	_, err := s.to.Write(parts[0])
	return err
}

// Unfinished returns for how many buffered bytes a write stands that another process has
// begun and whose bytes it has not discarded, 0 if there is none. The write may have been
// done in part, or wholly; Finish writes the rest.
func (s *Stream) Unfinished() int {
	if s.shared == nil {
		return 0
	}
	return s.shared.unfinished()
}

// Finish writes the rest of what is unfinished.
func (s *Stream) Finish() error { return s.shared.send() }

// ErrStopped is the error of a stream that was stopped.
var ErrStopped = errors.New("the stream was stopped")

// Stop has a stream of a memory end with ErrStopped wherever it is: another process, or
// this one, can go on with the memory as soon as it has. It may be called from any
// goroutine.
func (s *Stream) Stop() { s.shared.stop() }

// Preload puts bytes behind the buffered ones: those that somebody else has read from the
// connection. It is for the streams of a memory. There may be 1 MiB of them.
func (s *Stream) Preload(b []byte) {
	n := copy(s.buf[s.w:], b)
	s.w += n
	s.shared.account.read.begin(s.shared.account.read.done() + uint32(n))
}

// Position is the number of bytes of the connection before the buffered ones.
func (s *Stream) Position() uint64 {
	if s.shared == nil {
		return 0
	}
	return s.shared.account.step().at
}
