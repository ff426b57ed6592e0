package middleware

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// openCall is a call that started and times out so long after noon; 0: never.
func openCall(start, timeout time.Duration) *Call {
	return &Call{Start: noon.Add(start), timeout: timeout}
}

func wantLost(t *testing.T, got []lost, want ...lost) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d calls lost, want %d: %v", len(got), len(want), got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("lost %v, want %v", got[i], want[i])
		}
	}
}

func TestCallsAreTakenOnce(t *testing.T) {
	var cs calls
	c := openCall(0, 0)
	wantLost(t, cs.add(1, c))
	if cs.take(3) != nil || cs.take(1) != c || cs.take(1) != nil {
		t.Error("a call was not taken once")
	}
}

func TestCallsPastTheirTimeout(t *testing.T) {
	var cs calls
	late, patient := openCall(0, time.Second), openCall(0, 0)
	wantLost(t, cs.add(1, late))
	wantLost(t, cs.add(3, patient))
	wantLost(t, cs.add(5, openCall(time.Second+grace, 0))) // might be answered still
	wantLost(t, cs.add(7, openCall(sweepEvery+1, 0)), lost{late, late.Start.Add(time.Second), errAbandoned})
	if cs.take(1) != nil || cs.take(3) != patient {
		t.Error("the wrong call is gone")
	}
}

func TestCallsOfOneStream(t *testing.T) {
	var cs calls
	first, second, third := openCall(0, 0), openCall(1, time.Minute), openCall(2, 0)
	wantLost(t, cs.add(1, first))
	wantLost(t, cs.add(1, second), lost{first, second.Start, errAbandoned})
	wantLost(t, cs.add(1, third), lost{second, third.Start, errAbandoned})
	if cs.take(1) != third {
		t.Error("the last call of a stream is not the one that counts")
	}
}

func TestCallsAreBounded(t *testing.T) {
	var cs calls
	for i := range uint32(maxCalls) {
		wantLost(t, cs.add(2*i+1, openCall(0, 0)))
	}
	over := openCall(1, 0)
	wantLost(t, cs.add(1<<20, over), lost{over, over.Start, errTooMany})
	again := openCall(2, 0) // in another's place
	if got := cs.add(1, again); len(got) != 1 || got[0].Call == again {
		t.Errorf("lost %v, want the call whose stream it was", got)
	}
	if n := len(cs.end(noon.Add(3))); n != maxCalls {
		t.Errorf("%d calls were open, want %d", n, maxCalls)
	}
	wantLost(t, cs.end(noon.Add(4)))
}

func TestCallsWhenTheConnectionEnds(t *testing.T) {
	end := noon.Add(time.Minute)
	for name, tt := range map[string]struct {
		call *Call
		at   time.Time
		why  error
	}{
		"no timeout":     {openCall(0, 0), end, errClosed},
		"before timeout": {openCall(0, time.Hour), end, errClosed},
		"after timeout":  {openCall(0, time.Second), noon.Add(time.Second), errAbandoned},
	} {
		t.Run(name, func(t *testing.T) {
			var cs calls
			wantLost(t, cs.add(1, tt.call))
			wantLost(t, cs.end(end), lost{tt.call, tt.at, tt.why})
		})
	}
}
