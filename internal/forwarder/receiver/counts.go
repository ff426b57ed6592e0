package receiver

import (
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Snapshot is what happened until now. Every span that was delivered is sent, not
// wanted, lost, or still waits.
type Snapshot struct {
	// Snapshot is the forwarder's; Lost has the reasons of all.
	forwarder.Snapshot
	// Sent spans have been taken by the client, placeholders included.
	Sent uint64
	// Unwanted spans are of quiet calls, or of traces or times that are not recorded.
	Unwanted uint64
}

// Snapshot returns the counts; it may be called at any time, also after Close.
func (r *Receiver) Snapshot() Snapshot {
	s := Snapshot{Snapshot: r.forwarder.Snapshot(), Sent: r.count.sent.Load(), Unwanted: r.count.unwanted.Load()}
	s.Lost = r.losses.Counts()
	if n := r.count.untaken.Load(); n > 0 {
		s.Lost[losses.NotTaken] = n
	}
	return s
}

// count is what the Receiver counts itself.
type count struct{ sent, untaken, unwanted atomic.Uint64 }

// dropped counts what the collation does not pass on, and tells others who ask.
func (r *Receiver) dropped(others func(collate.Reason, int)) func(collate.Reason, int) {
	return func(reason collate.Reason, n int) {
		if lost, ok := lost[reason]; ok {
			r.losses.Add(lost, n)
		} else {
			r.count.unwanted.Add(uint64(n))
		}
		if others != nil {
			others(reason, n)
		}
	}
}

// lost are the reasons of the collation for which a span is lost; the others are for
// spans that nobody wants.
var lost = map[collate.Reason]losses.Reason{collate.Duplicate: losses.Duplicate, collate.Collision: losses.Collision}
