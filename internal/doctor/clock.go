package doctor

import (
	"context"

	"golang.org/x/sys/unix"
)

// clock looks whether somebody keeps the host's clock: spans of this host stand in one
// trace beside those of others. Guests' clocks are corrected by what they do for calls.
func clock(_ context.Context, s *site) []Finding {
	if !s.live() {
		return nil
	}
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return nil // not ours to know, in some containers
	}
	if t.Status&unix.STA_UNSYNC != 0 {
		return []Finding{{Level: Note, What: "nobody keeps this host's clock: spans of other hosts in one trace may be seconds off", Do: "run chrony or systemd-timesyncd"}}
	}
	return []Finding{{Level: OK, What: "the host's clock is kept; guests' clocks are corrected in the traces"}}
}
