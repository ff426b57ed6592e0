// Package sleep lets a loop pause until it is to end.
package sleep

import (
	"context"
	"time"
)

// For returns after d, or at once when ctx is done, and reports whether d has passed.
func For(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
