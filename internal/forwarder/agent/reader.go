package agent

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

const prefixSize = 8

// Reader splits an agent's stream into payloads. It is not safe for concurrent
// use.
//
// A Reader only stops at the end of the stream. A caller must read on after
// payloads that it cannot decode, and never close the connection of a living VM:
// the agent does not connect again, and waits for its reader before it lets the
// VM end.
type Reader struct {
	in       window
	held     int    // bytes of in that the last payload occupies
	long     []byte // for payloads beyond in's buffer; at most max
	max      uint64
	counters *Counters
}

// NewReader returns a Reader of r that obeys opts.MaxFrame.
func NewReader(r io.Reader, opts Options) *Reader {
	opts = opts.withDefaults()
	reader := &Reader{max: uint64(opts.MaxFrame), counters: opts.Counters}
	reader.in.init(r)
	return reader
}

// Next returns the next payload, which is valid until the call after. Frames over
// the limit are skipped. The error is io.EOF where the stream ends between
// frames, matches io.ErrUnexpectedEOF where it ends inside one, and is the
// stream's own otherwise (a killed VM's connection is reset).
func (r *Reader) Next() ([]byte, error) {
	r.in.discard(r.held)
	r.held = 0
	for {
		prefix, err := r.in.peek(prefixSize)
		if err != nil {
			if len(prefix) == 0 {
				return nil, err
			}
			return nil, r.cutShort("length", uint64(len(prefix)), prefixSize, err)
		}
		n := binary.BigEndian.Uint64(prefix)
		if n <= r.max {
			return r.payload(int(n))
		}
		r.in.discard(prefixSize)
		if err := r.skip(n); err != nil {
			return nil, err
		}
	}
}

func (r *Reader) payload(n int) ([]byte, error) {
	if prefixSize+n > largeWindow {
		r.in.discard(prefixSize)
		return r.longPayload(n)
	}
	r.long = nil // one long frame does not mean that there will be another
	p, err := r.in.peek(prefixSize + n)
	if err != nil {
		return nil, r.cutShort("payload", uint64(len(p)-prefixSize), uint64(n), err)
	}
	r.held = prefixSize + n
	return p[prefixSize:], nil
}

// longPayload grows its buffer with what arrives, not with what is announced.
func (r *Reader) longPayload(n int) ([]byte, error) {
	buf := r.long[:0]
	for len(buf) < n {
		have := len(buf)
		more := min(n-have, max(have, largeWindow))
		buf = slices.Grow(buf, more)[:have+more]
		got, err := r.in.readFull(buf[have:])
		r.long = buf
		if err != nil {
			return nil, r.cutShort("payload", uint64(have+got), uint64(n), err)
		}
	}
	return buf, nil
}

func (r *Reader) skip(n uint64) error {
	r.counters.lost[Oversized].Add(1)
	skipped, err := r.in.skip(n)
	r.counters.SkippedBytes.Add(skipped)
	if err != nil {
		return fmt.Errorf("read agent spans: the stream ended %d bytes into an oversized frame of %d: %w", skipped, n, unexpected(err))
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
