package main

import (
	"context"

	"github.com/shimtrace/shimtrace/internal/guard"
)

// lookForGuard tells of each relay whether it is guarded, and warns if some are not.
func (h *host) lookForGuard(ctx context.Context, dir string, relays []*relayStatus) {
	_, all, err := guard.Ask(ctx, dir)
	known := make(map[string]bool, len(all))
	for _, r := range all {
		known[r.ID] = r.Guarded
	}
	not := 0
	for _, r := range relays {
		if r.guarded = known[r.relay.RelaySock]; !r.guarded {
			not++
		}
	}
	switch {
	case not == 0:
	case err != nil:
		h.warn("there is no guard: a sandbox ends if its relay dies (%v)", err)
	default:
		h.warn("%d of %d relays are not guarded: such a sandbox ends if its relay dies; --json says which", not, len(relays))
	}
}
