package middleware

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Side is one of the two that a relayed connection is between.
type Side string

// The two sides.
const (
	Client Side = "client"
	Server Side = "server"
)

// End says how a relayed connection came to its end.
type End struct {
	// By is the side that ended first, at At: it said no more, or did not listen any
	// more.
	By Side
	At time.Time
	// Err is what reading from that side, or writing to it, failed with;
	// io.ErrUnexpectedEOF if it ended within a frame, nil if between two.
	Err error
	// Requests is the number of requests until then, and Last the full method of the
	// last one ("containerd.task.v3.Task/Exec"), empty if there was none.
	Requests uint64
	Last     string
	// Unanswered is the number of requests that got no answer, not counting those that
	// wait for something else to end, those that end the server, and those of which it is
	// expected (WithExpected).
	Unanswered int
}

// WithEnd sets who is told how each relayed connection ended, once both sides have.
// Default: nobody.
func WithEnd(f func(End)) Option {
	return func(o *options) { o.ended = f }
}

// ending is what a connection notes for its End.
type ending struct {
	requests atomic.Uint64
	kept     *atomic.Uint32 // the same, kept for another process; nil: it is not kept
	last     atomic.Pointer[method]

	once sync.Once
	end  End
}

// goOn counts on from what another process has counted.
func (e *ending) goOn(kept *atomic.Uint32) {
	e.kept = kept
	e.requests.Store(uint64(kept.Load()))
}

func (e *ending) request(m *method) {
	e.requests.Add(1)
	if e.kept != nil {
		e.kept.Add(1)
	}
	e.last.Store(m)
}

// note takes down that the direction that reads from a side ended for the reason err,
// unless the other one did before.
func (e *ending) note(from Side, err error) {
	e.once.Do(func() {
		by := from
		if errors.Is(err, errWrite) {
			by = map[Side]Side{Client: Server, Server: Client}[from]
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		e.end = End{By: by, At: time.Now(), Err: err, Requests: e.requests.Load()}
		if m := e.last.Load(); m != nil {
			e.end.Last = m.fullName
		}
	})
}

// tell tells of the end, when it is known which calls are lost.
func (c *conn) tell(calls []lost) {
	if c.ended == nil {
		return
	}
	c.guard(func() {
		end := c.ending.end
		for _, l := range calls {
			if !l.method.Waits && !l.method.Last && !l.Stream && !l.Expected {
				end.Unanswered++
			}
		}
		c.ended(end)
	})
}
