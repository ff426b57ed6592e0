package endpoint

import (
	"fmt"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Reason says why what was posted is not among the spans that the Sink got.
type Reason uint8

// Of these a whole request is lost, of whose spans nobody knows the number.
const (
	// Refused: the request is none that the endpoint takes (another method, path,
	// content type or encoding).
	Refused Reason = iota + 1
	// Oversized: the body is longer than Options.MaxBody.
	Oversized
	// CutShort: the body did not arrive whole, or not in time.
	CutShort
	// Busy: no room is left among what waits to be decoded.
	Busy
	// Malformed: the body is not a Batch in Thrift's binary protocol.
	Malformed
)

// Of these one span each.
const (
	// NoIdentity: the span's trace id or span id is zero.
	NoIdentity Reason = iota + Malformed + 1
	// TooMany: there are Options.MaxSpans in the body already.
	TooMany
	// TooLong: the span is longer than span.MaxSize even with its attributes
	// reduced.
	TooLong
	// Exporter: the exporter of runtime-rs traced its own HTTP. Nobody misses it.
	Exporter

	reasons
)

var reasonNames = [reasons]string{
	Refused: "refused", Oversized: "oversized", CutShort: "cut_short", Busy: "busy", Malformed: "malformed",
	NoIdentity: "no_identity", TooMany: "too_many", TooLong: "too_long", Exporter: "exporter",
}

// String returns the reason as a word for metrics and logs.
func (r Reason) String() string {
	if r > 0 && r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// Requests tells whether the reason is counted in requests, not in spans.
func (r Reason) Requests() bool { return r <= Malformed }

// Reasons returns all reasons, for those who report every count.
func Reasons() (all []Reason) {
	for r := Refused; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// Counters counts what arrived and what was lost. It is safe for concurrent use.
type Counters struct {
	// Bodies and Bytes are what was taken, Spans what the Sink got of it.
	Bodies, Bytes, Spans atomic.Uint64
	// Attributes has what became of attributes (its Reduced, Cut and Dropped).
	Attributes span.Counters
	// TurnedAway counts connections beyond Options.MaxConnections.
	TurnedAway atomic.Uint64

	lost [reasons]atomic.Uint64
}

// Lost returns how much was lost for a reason.
func (c *Counters) Lost(r Reason) uint64 {
	if r >= reasons {
		return 0
	}
	return c.lost[r].Load()
}
