package agent

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/losses"
)

const prefixSize = 8

// Reader splits an agent's stream into payloads. It is not safe for concurrent use.
//
// A Reader stops only at the end of the stream. The caller must read on after payloads that it
// cannot decode, and never close the connection of a running VM: the agent does not connect
// again, and delays the VM's end until somebody has read its spans.
type Reader struct {
	in       *handover.Stream
	held     int // bytes of in that the last payload occupies
	max      uint64
	counters *Counters
}

// NewReader returns a Reader of r with opts.MaxFrame.
func NewReader(r io.Reader, opts Options) *Reader {
	return NewStreamReader(handover.NewStream(r, nil), opts)
}

// NewStreamReader returns a Reader of a stream that can be handed over to another process. Next
// removes a payload from the stream in the call after the one that returned it.
func NewStreamReader(in *handover.Stream, opts Options) *Reader {
	opts = opts.withDefaults()
	return &Reader{in: in, max: uint64(opts.MaxFrame), counters: opts.Counters}
}

// Bound sets the longest payload that is read from now on, in bytes.
func (r *Reader) Bound(max int) { r.max = uint64(max) }

// Next returns the next payload, valid until the next call. It skips oversized frames. The
// error is io.EOF if the stream ends between frames, matches io.ErrUnexpectedEOF if it ends
// inside one, and is the stream's own otherwise (a killed VM's connection is reset).
func (r *Reader) Next() ([]byte, error) {
	if r.held > 0 {
		r.in.Discard(r.held, handover.Mark{})
		r.held = 0
	}
	for {
		if err := r.skip(); err != nil {
			return nil, err
		}
		prefix, err := r.in.Peek(prefixSize)
		if err != nil {
			if have := len(r.in.Buffered()); have > 0 {
				err = r.cutShort("length", have, prefixSize, err)
			}
			return nil, err
		}
		n := binary.BigEndian.Uint64(prefix)
		if n > r.max {
			r.counters.Losses.Add(losses.Oversized, 1)
			r.in.Discard(prefixSize, handover.Mark{Left: n})
			continue
		}
		p, err := r.in.Peek(prefixSize + int(n))
		if err != nil {
			return nil, r.cutShort("payload", len(r.in.Buffered())-prefixSize, n, err)
		}
		r.held = len(p)
		return p[prefixSize:], nil
	}
}

// skip skips the rest of an oversized frame, if the stream is in one.
func (r *Reader) skip() error {
	for left := r.in.Mark().Left; left > 0; {
		b, err := r.in.Next()
		n := min(uint64(len(b)), left)
		left -= n
		r.in.Discard(int(n), handover.Mark{Left: left})
		r.counters.SkippedBytes.Add(n)
		if err != nil && left > 0 {
			return fmt.Errorf("read agent spans: the stream ended %d bytes before the end of an oversized frame: %w", left, unexpected(err))
		}
	}
	return nil
}

func (r *Reader) cutShort(what string, have int, want uint64, err error) error {
	if errors.Is(err, handover.ErrStopped) {
		return err
	}
	r.counters.Losses.Add(losses.CutShort, 1)
	return fmt.Errorf("read agent spans: the stream ended %d bytes into a %s of %d: %w", have, what, want, unexpected(err))
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
