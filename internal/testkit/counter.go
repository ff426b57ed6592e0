package testkit

import (
	"sync/atomic"
	"time"
)

// Counts waits until a counter has changed, or over is closed.
func Counts(n *atomic.Int64, over <-chan struct{}) {
	for was := n.Load(); n.Load() == was; {
		select {
		case <-over:
			return
		case <-time.After(time.Millisecond):
		}
	}
}
