package keeper

import (
	"context"
	"time"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

const (
	// seldom is the pause between looks of an idle Keeper: others look, or nobody can be
	// waiting for the process.
	seldom = 3 * time.Second
	// fresh is how recent the last answer is if another Keeper watches.
	fresh = time.Second
)

// Watch looks at the process until ctx is done, even if nobody calls Ensure. Of all
// watching Keepers one does the work; the others check rarely that one does.
func (k *Keeper) Watch(ctx context.Context) {
	k.watch(ctx, func() bool {
		now := time.Now()
		last, answers := since(k.opts.Lock, now)
		return answers && last < fresh && now.Sub(k.looked)-last > k.opts.Every/8
	})
}

// Guard is Watch for the host's one process with nothing better to do. It looks seldom
// while the process's answer is empty: then nobody can be waiting for it.
func (k *Keeper) Guard(ctx context.Context) {
	k.watch(ctx, func() bool {
		_, answers := since(k.opts.Lock, time.Now())
		return !answers || k.answer == ""
	})
}

// Watched reports whether the process has answered any Keeper in the last Options.Every.
func (k *Keeper) Watched() bool {
	last, answers := since(k.opts.Lock, time.Now())
	return answers && last < k.opts.Every
}

func (k *Keeper) watch(ctx context.Context, idle func() bool) {
	for wait := time.Duration(0); sleep.For(ctx, wait); {
		k.Ensure()
		k.mu.Lock()
		wait = k.opts.Every
		if k.silent.IsZero() && idle() {
			wait = max(wait, seldom)
		}
		k.mu.Unlock()
	}
}
