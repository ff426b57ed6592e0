package middleware

import (
	"testing"
	"time"
)

// TestEnded: a call ends as much later as has passed, whatever the clock says, and never
// before it began.
func TestEnded(t *testing.T) {
	c := &Call{Start: time.Now()}
	c.ended(c.Start.Add(time.Second))
	if d := c.End.UnixNano() - c.Start.UnixNano(); d != int64(time.Second) {
		t.Errorf("a second is %v", time.Duration(d))
	}
	resumed := &Call{Start: time.Unix(0, time.Now().Add(time.Hour).UnixNano())}
	if resumed.ended(time.Now()); !resumed.End.Equal(resumed.Start) {
		t.Errorf("a call of the future ends %v before it began", resumed.Start.Sub(resumed.End))
	}
}
