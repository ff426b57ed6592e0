package middleware

import (
	"sync"
	"time"
)

const (
	// maxCalls bounds the calls of one connection that wait for their answer.
	// Further ones are forwarded, and their spans end at once, marked.
	maxCalls = 4096
	// grace is how long after its timeout a call can still be answered.
	grace = 5 * time.Second
	// sweepAbove and sweepEvery say when to look for calls past their timeout:
	// ttrpc has no frame that tells of a call given up.
	sweepAbove = 32
	sweepEvery = 10 * time.Second
)

// calls are the calls of a connection that wait for their answer, by stream id.
type calls struct {
	mu    sync.Mutex
	open  map[uint32]*Call
	swept time.Time
}

// add puts a call in, before its request is forwarded: its answer may be faster
// than we are.
func (cs *calls) add(s *spans, stream uint32, c *Call) {
	cs.mu.Lock()
	if cs.open == nil {
		cs.open = make(map[uint32]*Call)
	}
	var late []*Call
	if len(cs.open) >= sweepAbove && c.Start.Sub(cs.swept) > sweepEvery {
		late = cs.sweep(c.Start)
	}
	if old := cs.open[stream]; old != nil {
		late = append(late, old)
		delete(cs.open, stream)
	}
	full := len(cs.open) >= maxCalls
	if !full {
		cs.open[stream] = c
	}
	cs.mu.Unlock()
	if full {
		s.abandon(c, c.Start, errTooMany)
	}
	for _, old := range late {
		s.abandon(old, old.givenUp(c.Start), errAbandoned)
	}
}

// sweep removes and returns the calls that are past their timeout at now.
func (cs *calls) sweep(now time.Time) (late []*Call) {
	cs.swept = now
	for stream, c := range cs.open {
		if !c.deadline.IsZero() && now.After(c.deadline.Add(grace)) {
			delete(cs.open, stream)
			late = append(late, c)
		}
	}
	return late
}

// givenUp returns when a call without answer was given up: at its timeout, if it
// had one.
func (c *Call) givenUp(otherwise time.Time) time.Time {
	if c.deadline.IsZero() {
		return otherwise
	}
	return c.deadline
}

// take removes and returns the call of a stream, nil if there is none.
func (cs *calls) take(stream uint32) *Call {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.open[stream]
	delete(cs.open, stream)
	return c
}

// stream marks the call of a stream as a streaming one.
func (cs *calls) stream(stream uint32) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c := cs.open[stream]; c != nil {
		c.Stream = true
	}
}

// end ends all calls, since their connection has ended at now.
func (cs *calls) end(s *spans, now time.Time) {
	cs.mu.Lock()
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for _, c := range open {
		reason := errClosed
		at := now
		if !c.deadline.IsZero() && now.After(c.deadline) {
			reason, at = errAbandoned, c.deadline
		}
		s.abandon(c, at, reason)
	}
}
