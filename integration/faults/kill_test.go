package faults_test

import (
	"fmt"
	"testing"

	"github.com/shimtrace/shimtrace/integration/faults"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestKills kills processes of shimtrace at random moments, under load: no pod is lost,
// no call fails, every byte is there, and every span that is not is counted.
func TestKills(t *testing.T) {
	for i, tt := range []struct {
		what  string
		kinds []traced.Kind
		share int // of all kills, in percent
	}{
		{"relays, the guard and what ships the spans in turn", []traced.Kind{traced.Relay, traced.Guard, traced.Relay, traced.Collect}, 45},
		{"a relay", []traced.Kind{traced.Relay}, 50},
		{"the guard", []traced.Kind{traced.Guard}, 4},
		{"what ships the spans", []traced.Kind{traced.Collect}, 1},
	} {
		t.Run(tt.what, func(t *testing.T) {
			selected(t, i)
			s := start(t, traced.Options{})
			l := faults.Start(t, s.Install, faults.Options{Echo: true})
			k := traced.NewKiller(s.Rig)
			n := faults.Kills() * tt.share / 100
			k.Kill(t, n, tt.kinds...)
			work(t, l, 100)
			t.Logf("killed %v; relays that live were resumed %d times", k.Killed, k.Resumed())
			told := k.Tell()
			row := s.finish(l)
			if row.CallsFailed > 0 {
				t.Errorf("%d of %d calls failed; the first:\n%s\n%s", row.CallsFailed, row.Calls, l.Failures(), told)
			}
			if faults.Whole() {
				reliability.Row(t, reliability.Fault{Area: area, Fault: fmt.Sprintf("killed at random moments: %s, %d times", tt.what, n), Load: row})
			}
		})
	}
}
