package agent

import (
	"fmt"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Reason says why a span that the agent sent, or part of one, was lost.
type Reason uint8

const (
	// Oversized: the frame is longer than Options.MaxFrame.
	Oversized Reason = iota + 1
	// CutShort: the connection ended inside the frame.
	CutShort
	// Truncated: the payload ends inside a field.
	Truncated
	// Malformed: the payload is not what its encoding prescribes.
	Malformed
	// NotText: a string that would be kept is not UTF-8, which OTLP requires.
	NotText
	// NoIdentity: the trace id or span id is zero.
	NoIdentity

	reasons
)

// String returns the reason as a word for metrics and logs.
func (r Reason) String() string {
	switch r {
	case Oversized:
		return "oversized"
	case CutShort:
		return "cut_short"
	case Truncated:
		return "truncated"
	case Malformed:
		return "malformed"
	case NotText:
		return "not_text"
	case NoIdentity:
		return "no_identity"
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Counters counts what arrived and what was lost. It is safe for concurrent use.
type Counters struct {
	// Counters has what became of spans.
	span.Counters
	// Bytes are those of the payloads that were decoded.
	Bytes atomic.Uint64
	// SkippedBytes are those of oversized frames.
	SkippedBytes atomic.Uint64

	lost [reasons]atomic.Uint64
}

// Lost returns how many frames were lost for a reason.
func (c *Counters) Lost(r Reason) uint64 {
	if r >= reasons {
		return 0
	}
	return c.lost[r].Load()
}

// Reasons returns all reasons, for those who report every count.
func Reasons() []Reason {
	return []Reason{Oversized, CutShort, Truncated, Malformed, NotText, NoIdentity}
}

// PayloadError says that a payload could not be decoded. It never quotes the
// payload, which may hold secrets. The connection is unharmed: the next frame
// can be read.
type PayloadError struct {
	Encoding Encoding
	Reason   Reason
	// Offset is where in the payload decoding stopped, in bytes.
	Offset int
}

func (e *PayloadError) Error() string {
	return fmt.Sprintf("decode agent span: %s payload %s at byte %d", e.Encoding, e.Reason, e.Offset)
}
