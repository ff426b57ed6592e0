package collect

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

const (
	// quietTime is how long posts must have stopped before their memory goes back to
	// the system. Pods that start together post a thousand times, and then next to
	// nothing for days.
	quietTime = 3 * time.Second
	// quietPosts are too few for a burst: those of a pod that merely runs.
	quietPosts = 20
)

// giveBack gives memory back to the system after each burst of posts until ctx is done.
func giveBack(ctx context.Context, posts func() uint64) {
	given, before := uint64(0), uint64(0)
	for sleep.For(ctx, quietTime) {
		now := posts()
		if now-given > quietPosts && now-before <= quietPosts {
			debug.FreeOSMemory()
			given = now
		}
		before = now
	}
}
