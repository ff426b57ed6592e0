package middleware

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// guard runs tracing code, whose panic must not harm the call: it is reported, and the call
// goes on untraced. guard reports whether f came to its end.
func (s *spans) guard(f func()) (ok bool) {
	defer func() {
		if !ok {
			s.report(fmt.Errorf("panic in tracing, the call goes on untraced: %v\n%s", recover(), debug.Stack()))
		}
	}()
	f()
	return true
}

// report tells the error handler of err, and survives it.
func (s *spans) report(err error) {
	defer func() { _ = recover() }()
	s.onError(err)
}

// panics counts the panics of tracing on a connection. One may be the fault of
// one strange frame; after a second the connection is forwarded untraced.
type panics struct{ n atomic.Int32 }

func (p *panics) off() bool { return p.n.Load() > 1 }

// guard is spans.guard, and counts panics.
func (c *conn) guard(f func()) bool {
	ok := c.spans.guard(f)
	if !ok {
		c.panics.n.Add(1)
	}
	return ok
}
