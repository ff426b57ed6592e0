package middleware

import (
	"errors"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/handover"
)

const (
	// maxCalls bounds the calls of one connection that wait for their answer.
	// Further ones are forwarded, and their spans end at once, marked.
	maxCalls = 4096
	// grace is how long after its timeout a call can still be answered.
	grace = 5 * time.Second
	// sweepEvery is how often calls past their timeout are looked for, when a
	// call comes: ttrpc has no frame that tells of a call given up.
	sweepEvery = 10 * time.Second
)

// The reasons for a call to end without an answer; their texts are the values of
// error.type.
var (
	errClosed    = errors.New("connection_closed")
	errAbandoned = errors.New("abandoned")
	errTooMany   = errors.New("too_many_calls")
	errResumed   = errors.New("relay_resumed")
)

// lost is a call that gets no answer any more, since when and why.
type lost struct {
	*Call
	at  time.Time
	why error
}

// calls are the calls of a connection that wait for their answer, by stream id.
type calls struct {
	mu    sync.Mutex
	open  map[uint32]*Call
	kept  *handover.Calls // the same, kept for another process; nil: they are not kept
	swept time.Time
}

// add puts a call in, before its request is forwarded: its answer may be faster
// than we are. It returns the calls that are lost, which may be c itself.
func (cs *calls) add(stream uint32, c *Call) (gone []lost) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[uint32]*Call)
	}
	if c.Start.Sub(cs.swept) > sweepEvery {
		gone = cs.sweep(c.Start)
	}
	if old := cs.open[stream]; old != nil {
		gone = append(gone, lost{old, old.givenUp(c.Start), errAbandoned})
		cs.remove(stream)
	}
	if len(cs.open) == maxCalls {
		return append(gone, lost{c, c.Start, errTooMany})
	}
	cs.open[stream] = c
	if cs.kept != nil {
		cs.kept.Put(c.kept(stream))
	}
	return gone
}

// restore puts in a call that is kept already.
func (cs *calls) restore(stream uint32, c *Call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[uint32]*Call)
	}
	cs.open[stream] = c
}

// remove forgets the call of a stream.
func (cs *calls) remove(stream uint32) {
	delete(cs.open, stream)
	cs.told(stream)
}

// sweep removes and returns the calls that are past their timeout at now.
func (cs *calls) sweep(now time.Time) (gone []lost) {
	cs.swept = now
	for stream, c := range cs.open {
		if at, ok := c.deadline(); ok && now.After(at.Add(grace)) {
			cs.remove(stream)
			gone = append(gone, lost{c, at, errAbandoned})
		}
	}
	return gone
}

// take removes and returns the call of a stream, nil if there is none. It is kept until told,
// so that another process ends its span if this one is killed before it has.
func (cs *calls) take(stream uint32) *Call {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[stream]
	delete(cs.open, stream)
	return c
}

// told forgets a call that was taken.
func (cs *calls) told(stream uint32) {
	if cs.kept != nil {
		cs.kept.Remove(stream)
	}
}

// end removes and returns all calls, since their connection has ended at now.
func (cs *calls) end(now time.Time) (gone []lost) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, c := range cs.open {
		if at := c.givenUp(now); at.Before(now) {
			gone = append(gone, lost{c, at, errAbandoned})
		} else {
			gone = append(gone, lost{c, now, errClosed})
		}
	}
	cs.open = nil
	return gone
}

// givenUp returns when a call that has no answer at now was given up: at its
// timeout, if that has passed.
func (c *Call) givenUp(now time.Time) time.Time {
	if at, ok := c.deadline(); ok && !now.Before(at) {
		return at
	}
	return now
}
