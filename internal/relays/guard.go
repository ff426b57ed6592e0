package relays

import (
	"context"

	"github.com/shimtrace/shimtrace/internal/guard"
)

// lookForGuard sets for each relay whether it is guarded, and warns if some are not, or if
// the guard has no process events.
func (o Operator) lookForGuard(ctx context.Context, relays []*status) {
	self, all, err := guard.Ask(ctx, o.Dir)
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
	if self.Unrecorded != "" {
		o.Warn("what inner shims execute is not recorded: %s", self.Unrecorded)
	}
	switch {
	case not == 0:
	case err != nil:
		o.Warn("there is no guard: a sandbox ends if its relay dies (%v)", err)
	default:
		o.Warn("%d of %d relays are not guarded: such a sandbox ends if its relay dies; --json says which", not, len(relays))
	}
}
