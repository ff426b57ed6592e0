package doctor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/relays"
)

// clock looks at the clocks whose times stand in one trace: the host's, and those of the
// guests that run.
func clock(ctx context.Context, s *site) []Finding {
	if !s.live() {
		return nil
	}
	return append(hostClock(), guestClocks(ctx, s)...)
}

// hostClock checks whether somebody keeps the host's clock: spans of other hosts stand
// beside this one's.
func hostClock() []Finding {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return nil // not ours to know, in some containers
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return []Finding{{Level: Note, What: "nobody keeps this host's clock: spans of other hosts in one trace may be seconds off", Do: "run chrony or systemd-timesyncd"}}
	}
	return []Finding{{Level: OK, What: "the host's clock is kept"}}
}

const (
	// askTime bounds the questions to all relays, which are asked at once.
	askTime = 5 * time.Second
	// farOff is an offset that a guest that has its clock from the host does not reach.
	farOff = time.Second
)

// guestClocks asks the relays what they have learned of their guests' clocks. Times are
// corrected in the traces; a guest's own log has the wrong ones.
func guestClocks(ctx context.Context, s *site) (all []Finding) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	reports, _ := relays.Look(ctx, s.config.Relay.StateDir, nil) // an error says that there are none
	known, silent := 0, 0
	for _, r := range reports {
		if r.Error != "" {
			silent++
		}
		if r.Facts == nil || r.Facts.Clock == nil {
			continue
		}
		known++
		c := *r.Facts.Clock
		// Offset is what has to be added to the guest's times.
		if off := -c.Offset; off.Abs() >= farOff || c.Set > 0 {
			all = append(all, Finding{
				Level: Note, Where: r.Socket,
				What: fmt.Sprintf("the clock of the guest of sandbox %s is %s off, and was set %d times while it ran; its spans are corrected", cmp.Or(r.Name, r.Sandbox), off.Round(time.Millisecond), c.Set),
				Do:   "nothing for the traces; for the guest's own times, give it a clock of the host's (kvm-clock, ptp_kvm)",
			})
		}
	}
	if known > 0 && len(all) == 0 {
		all = append(all, Finding{Level: OK, What: fmt.Sprintf("the clocks of %d guests are the host's, within %s", known, farOff)})
	}
	if silent > 0 {
		all = append(all, Finding{Level: Note, What: fmt.Sprintf("of guests' clocks, %s did not answer", count(silent, "relay")), Where: s.config.Relay.StateDir, Do: "shimtrace status says which, and why"})
	}
	return all
}
