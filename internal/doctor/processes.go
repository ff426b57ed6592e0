package doctor

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// processes looks at what the host has once: the guard and the collecting process.
func processes(ctx context.Context, s *site) (all []Finding) {
	if !s.live() {
		return nil
	}
	dir := s.config.Relay.StateDir
	if err := private.CheckDir(dir); err != nil && !os.IsNotExist(err) {
		if os.IsPermission(err) {
			return []Finding{{Level: Note, What: "only root can look at it", Where: dir, Do: "run this as root"}}
		}
		return []Finding{{Level: Error, What: "relays refuse the state directory, and nothing is traced: " + err.Error(), Where: dir, Do: "chown root and chmod 700 it, or set state_dir of [relay]"}}
	}
	living := 0
	for _, r := range s.relays(ctx) {
		if r.lives {
			living++
		}
	}
	err := guard.Ping(ctx, dir)
	switch {
	case err == nil:
		all = append(all, Finding{Level: OK, What: "the guard answers", Where: dir})
	case living > 0:
		all = append(all, Finding{Level: Error, What: fmt.Sprintf("%d relays run without a guard, and a pod ends if its relay dies: %v", living, err), Where: dir, Do: "relays start a guard within a second; " + dir + "/guard.log and containerd's log say why they cannot"})
	default:
		all = append(all, Finding{Level: OK, What: "no relay runs, and so no guard", Where: dir})
	}
	lock := export.CollectLock(s.config)
	answer := keeper.Ask(lock)
	switch {
	case answer == keeper.Answers:
		all = append(all, Finding{Level: OK, What: "shimtrace collect answers", Where: lock})
	case answer == keeper.Silent:
		all = append(all, Finding{Level: Error, What: "shimtrace collect runs and does not answer", Where: lock, Do: "relays replace it within 10 s; if none runs, end it yourself"})
	case living > 0 && s.config.Export.Ships():
		all = append(all, Finding{Level: Warning, What: "shimtrace collect does not run, so nothing is shipped; spans wait in the journal", Where: lock, Do: "containerd's log says why relays cannot start it; or run it: shimtrace collect --idle 0"})
	default:
		all = append(all, Finding{Level: OK, What: "shimtrace collect does not run: nothing needs it now", Where: lock})
	}
	return all
}

// knownRelay is one that has files in the state directory.
type knownRelay struct {
	control.Relay
	lives bool
}

// relays returns the relays that have files in the state directory, and connects to each
// once for all checks, to all at the same time.
func (s *site) relays(ctx context.Context) []knownRelay {
	if s.asked {
		return s.known
	}
	all, _ := control.List(s.config.Relay.StateDir)
	s.known, s.asked = make([]knownRelay, len(all)), true
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { s.known[i] = knownRelay{r, control.Listens(ctx, r.RelaySock)} })
	}
	wg.Wait()
	return s.known
}
