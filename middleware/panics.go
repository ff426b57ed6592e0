package middleware

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
)

// panics counts the panics of tracing on a connection. One may be the fault of
// one strange frame; after a second the connection is forwarded untraced.
type panics struct{ n atomic.Int32 }

func (p *panics) off() bool { return p.n.Load() > 1 }

// guard runs tracing code. It reports whether f came to its end.
func (c *conn) guard(f func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		c.panics.n.Add(1)
		c.onError(fmt.Errorf("relay: panic in tracing, the frame was forwarded as it came: %v\n%s", recover(), debug.Stack()))
	}()
	f()
	return true
}
