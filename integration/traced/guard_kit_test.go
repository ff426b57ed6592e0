package traced_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/guard"
)

// relayDied is the reason for which spans are lost that a relay had not written when it was
// killed.
const relayDied = "relay_died"

// stateDir is the relays' directory, as the host sees it.
func stateDir(r *rig.Rig) string { return filepath.Join(r.Dir, "run/shimtrace") }

// guarded waits until the rig's only relay is one that holds for, and returns it and the
// guard's process.
func guarded(t *testing.T, r *rig.Rig, holds func(guard.Status) bool) (relay guard.Status, guardPID int) {
	t.Helper()
	until(t, "the relay to be guarded", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		self, all, err := guard.Ask(ctx, stateDir(r))
		if err != nil || len(all) != 1 || !all[0].Guarded || !holds(all[0]) {
			return false
		}
		relay, guardPID = all[0], self.PID
		return true
	})
	return relay, guardPID
}

// killRelay kills the rig's only relay, and returns the one that goes on.
func killRelay(t *testing.T, r *rig.Rig) guard.Status {
	t.Helper()
	before, _ := guarded(t, r, func(guard.Status) bool { return true })
	check(t, unix.Kill(before.PID, unix.SIGKILL))
	now, _ := guarded(t, r, func(s guard.Status) bool { return s.PID != before.PID })
	return now
}

// spansOfKilled are the spans in the journal, each once: a relay that is killed before it
// has noted that a span is in the journal leaves it to the next one.
func spansOfKilled(t *testing.T, in *traced.Install) []otlprecv.Span {
	t.Helper()
	all, err := in.SpansBut(relayDied)
	check(t, err)
	known := make(map[string]bool)
	return slices.DeleteFunc(all, func(s otlprecv.Span) bool {
		was := known[s.ID]
		known[s.ID] = true
		return was
	})
}
