package agent

import (
	"io"
	"sync"
)

const (
	// smallWindow is what a connection that says nothing costs in memory.
	smallWindow = 4 << 10
	// largeWindow holds the largest frame seen of a small pod twice over, so that
	// payloads are seldom copied.
	largeWindow = 64 << 10
	// maxEmptyReads in a row are taken for a stream that makes no progress.
	maxEmptyReads = 100
)

// largeWindows are those that no connection uses at the moment: the garbage
// collector takes them after a burst.
var largeWindows = sync.Pool{New: func() any { return new([largeWindow]byte) }}

// window is the part of a stream that was read and not yet consumed. It has a large
// buffer only while more has arrived than a small one holds: an agent sends every few
// seconds, and then a lot.
type window struct {
	src   io.Reader
	small [smallWindow]byte
	large *[largeWindow]byte // nil while small does
	buf   []byte             // small or large
	r, w  int                // buf[r:w] is not consumed
	err   error              // of src, to be returned once everything is consumed
}

func (w *window) init(src io.Reader) { w.src, w.buf = src, w.small[:] }

func (w *window) buffered() int { return w.w - w.r }

// peek returns the next n bytes without consuming them, n at most largeWindow; fewer
// with the error that kept the rest from coming. They are valid until the next call.
func (w *window) peek(n int) ([]byte, error) {
	for w.buffered() < n && w.err == nil {
		w.fill(n)
	}
	if have := w.buffered(); have < n {
		return w.buf[w.r:w.w], w.takeErr()
	}
	return w.buf[w.r : w.r+n], nil
}

// discard consumes n bytes that peek has returned.
func (w *window) discard(n int) {
	w.r += n
	if w.r == w.w {
		w.empty()
	}
}

// skip consumes up to n bytes and returns how many; fewer only with an error.
func (w *window) skip(n uint64) (skipped uint64, err error) {
	for skipped < n {
		if w.buffered() == 0 && w.err == nil {
			w.fill(int(min(n-skipped, largeWindow)))
		}
		some := min(n-skipped, uint64(w.buffered()))
		if some == 0 && w.err != nil {
			return skipped, w.takeErr()
		}
		skipped += some
		w.discard(int(some))
	}
	return skipped, nil
}

// readFull consumes len(b) bytes into b and returns how many; fewer only with an
// error.
func (w *window) readFull(b []byte) (n int, err error) {
	n = copy(b, w.buf[w.r:w.w])
	w.discard(n)
	for empty := 0; n < len(b); {
		if w.err != nil {
			return n, w.takeErr()
		}
		var got int
		got, w.err = w.src.Read(b[n:])
		n += got
		if got == 0 {
			empty++
		} else {
			empty = 0
		}
		if empty == maxEmptyReads {
			w.err = io.ErrNoProgress
		}
	}
	return n, nil
}

// fill reads once, after it has made room for n bytes in a row.
func (w *window) fill(n int) {
	if w.large == nil && (n > smallWindow || w.r == 0 && w.w == smallWindow) {
		w.grow()
	}
	if w.r > 0 && w.r+n > len(w.buf) {
		w.w = copy(w.buf, w.buf[w.r:w.w])
		w.r = 0
	}
	for range maxEmptyReads {
		var got int
		got, w.err = w.src.Read(w.buf[w.w:])
		w.w += got
		if w.large == nil && w.w == smallWindow && w.err == nil {
			w.grow() // there will be more
		}
		if got > 0 || w.err != nil {
			return
		}
	}
	w.err = io.ErrNoProgress
}

func (w *window) grow() {
	w.large = largeWindows.Get().(*[largeWindow]byte)
	w.w = copy(w.large[:], w.buf[w.r:w.w])
	w.r, w.buf = 0, w.large[:]
}

// empty begins anew where everything is consumed.
func (w *window) empty() {
	w.r, w.w = 0, 0
	if w.large != nil {
		largeWindows.Put(w.large)
		w.large, w.buf = nil, w.small[:]
	}
}

func (w *window) takeErr() error {
	err := w.err
	w.err = nil
	return err
}
