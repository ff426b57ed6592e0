package collect

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	// quietTime is how long nothing may have been posted until the memory of what was
	// goes back to the system: pods that start together post a thousand times, and then
	// next to nothing for days.
	quietTime = 3 * time.Second
	// quietPosts are few enough to be no burst: those of a pod that only lives.
	quietPosts = 20
)

// giveBack gives memory back to the system after each burst of posts until ctx is done.
func giveBack(ctx context.Context, posts func() uint64) {
	ticker := time.NewTicker(quietTime)
	defer ticker.Stop()
	given, before := uint64(0), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := posts()
		if now-given > quietPosts && now-before <= quietPosts {
			debug.FreeOSMemory()
			given = now
		}
		before = now
	}
}
