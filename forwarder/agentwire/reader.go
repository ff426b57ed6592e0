package agentwire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

const (
	prefixSize = 8
	// readBuffer holds the largest frame seen of a small pod twice over, so that
	// payloads are seldom copied.
	readBuffer = 64 << 10
)

// Reader splits an agent's stream into payloads. It is not safe for concurrent
// use.
//
// A Reader only stops at the end of the stream. A caller must read on after
// payloads that it cannot decode, and never close the connection of a living VM:
// the agent does not connect again, and waits for its reader before it lets the
// VM end.
type Reader struct {
	r        *bufio.Reader
	held     int    // bytes of r's buffer that the last payload occupies
	large    []byte // for payloads beyond r's buffer; at most max
	max      uint64
	counters *Counters
}

// NewReader returns a Reader of r that obeys opts.MaxFrame.
func NewReader(r io.Reader, opts Options) *Reader {
	opts = opts.withDefaults()
	return &Reader{r: bufio.NewReaderSize(r, readBuffer), max: uint64(opts.MaxFrame), counters: opts.Counters}
}

// Next returns the next payload, which is valid until the call after. Frames over
// the limit are skipped. The error is io.EOF where the stream ends between
// frames, matches io.ErrUnexpectedEOF where it ends inside one, and is the
// stream's own otherwise (a killed VM's connection is reset).
func (r *Reader) Next() ([]byte, error) {
	if _, err := r.r.Discard(r.held); err != nil {
		return nil, err
	}
	r.held = 0
	for {
		prefix, err := r.r.Peek(prefixSize)
		if err != nil {
			if len(prefix) == 0 {
				return nil, err
			}
			return nil, r.cutShort("length", uint64(len(prefix)), prefixSize, err)
		}
		n := binary.BigEndian.Uint64(prefix)
		if _, err := r.r.Discard(prefixSize); err != nil {
			return nil, err
		}
		if n <= r.max {
			return r.payload(int(n))
		}
		if err := r.skip(n); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) payload(n int) ([]byte, error) {
	if n > r.r.Size() {
		return r.largePayload(n)
	}
	p, err := r.r.Peek(n)
	if err != nil {
		return nil, r.cutShort("payload", uint64(len(p)), uint64(n), err)
	}
	r.held = n
	return p, nil
}

// largePayload grows its buffer with what arrives, not with what is announced.
func (r *Reader) largePayload(n int) ([]byte, error) {
	buf := r.large[:0]
	for len(buf) < n {
		have := len(buf)
		more := min(n-have, max(have, readBuffer))
		buf = slices.Grow(buf, more)[:have+more]
		got, err := io.ReadFull(r.r, buf[have:])
		r.large = buf
		if err != nil {
			return nil, r.cutShort("payload", uint64(have+got), uint64(n), err)
		}
	}
	return buf, nil
}

func (r *Reader) skip(n uint64) error {
	r.counters.lost[Oversized].Add(1)
	for left := n; left > 0; {
		got, err := r.r.Discard(int(min(left, 1<<30)))
		left -= uint64(got)
		r.counters.SkippedBytes.Add(uint64(got))
		if err != nil {
			return fmt.Errorf("read agent spans: the stream ended %d bytes into an oversized frame of %d: %w", n-left, n, unexpected(err))
		}
	}
	return nil
}

func (r *Reader) cutShort(what string, have, want uint64, err error) error {
	r.counters.lost[CutShort].Add(1)
	return fmt.Errorf("read agent spans: the stream ended %d bytes into a %s of %d: %w", have, what, want, unexpected(err))
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
