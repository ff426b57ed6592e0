package keeper

import (
	"context"
	"time"
)

const (
	// seldom is how often a Keeper looks that has nothing to do: others look, or nobody
	// can wait for the process.
	seldom = 3 * time.Second
	// fresh is how long ago somebody has looked, if somebody does.
	fresh = time.Second
)

// Watch has a process that is there looked at until ctx is done, also if nobody calls
// Ensure. Of all that watch one does it; the others look seldom whether somebody does.
func (k *Keeper) Watch(ctx context.Context) {
	k.watch(ctx, func() bool {
		now := time.Now()
		last, answers := since(k.opts.Lock, now)
		return answers && last < fresh && now.Sub(k.looked)-last > k.opts.Every/8
	})
}

// Guard is Watch for the process of a host that has nothing better to do. As long as
// what is watched has nothing to answer, nobody can wait for it.
func (k *Keeper) Guard(ctx context.Context) {
	k.watch(ctx, func() bool {
		_, answers := since(k.opts.Lock, time.Now())
		return !answers || k.answer == ""
	})
}

func (k *Keeper) watch(ctx context.Context, idle func() bool) {
	for {
		k.Ensure()
		k.mu.Lock()
		wait := k.opts.Every
		if k.silent.IsZero() && idle() {
			wait = max(wait, seldom)
		}
		k.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}
