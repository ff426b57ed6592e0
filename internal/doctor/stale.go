package doctor

import (
	"context"
	"fmt"
)

// staleRelays looks for the files of relays that have ended before their sandbox was deleted.
func staleRelays(ctx context.Context, s *site) (all []Finding) {
	if !s.live() {
		return nil
	}
	living := 0
	for _, r := range s.relays(ctx) {
		if r.lives {
			living++
			continue
		}
		all = append(all, Finding{Level: Warning, What: fmt.Sprintf("the relay of sandbox %s is gone, and its files are there: the sandbox has ended, or cannot be reached by containerd", r.Name()), Where: r.RelaySock, Do: "delete the sandbox (crictl rmp -f, nerdctl rm -f, ctr task delete -f): that removes them"})
	}
	if len(all) == 0 {
		all = append(all, Finding{Level: OK, What: fmt.Sprintf("%d run, none is stale", living), Where: s.config.Relay.StateDir})
	}
	return all
}
