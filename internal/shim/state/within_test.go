package state

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// TestWithin: the clock is set while a sandbox lives that has started a minute ago.
func TestWithin(t *testing.T) {
	started := time.Now()
	s := State{Started: started, Uptime: host.Uptime() - time.Minute}
	for _, tt := range []struct{ at, want time.Duration }{
		{0, 0}, {30 * time.Second, 30 * time.Second}, {time.Minute, time.Minute},
		{-time.Hour, time.Minute}, {time.Hour, time.Minute},
	} {
		if got := s.Within(started.Add(tt.at)).Sub(started); (got - tt.want).Abs() > 10*time.Second {
			t.Errorf("%v after the start is taken for %v, want %v", tt.at, got, tt.want)
		}
	}
	// A state that says less.
	s.Uptime = 0
	if got := s.Within(started.Add(time.Hour)); !got.Equal(started.Add(time.Hour)) {
		t.Errorf("without the uptime: %v", got)
	}
	if got := s.Within(started.Add(-time.Hour)); !got.Equal(started) {
		t.Errorf("before the start: %v", got)
	}
}
