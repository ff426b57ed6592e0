package host

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// TestStarved: threads that wait for a processor, or want one all the time, tell a busy
// machine from a process that hangs.
func TestStarved(t *testing.T) {
	const d, ms = 300 * time.Millisecond, time.Millisecond
	for name, tt := range map[string]struct {
		before, after Thread
		want          bool
	}{
		"sleeps":                 {Thread{'S', ms, ms}, Thread{'S', ms, ms}, false},
		"waits for a disk":       {Thread{'D', ms, ms}, Thread{'D', ms, ms}, false},
		"runs":                   {Thread{'R', ms, ms}, Thread{'R', 290 * ms, 5 * ms}, false},
		"has just woken":         {Thread{'S', ms, ms}, Thread{'R', ms, ms}, false},
		"has waited":             {Thread{'S', ms, ms}, Thread{'S', 2 * ms, 200 * ms}, true},
		"still waits":            {Thread{'R', ms, ms}, Thread{'R', ms, ms}, true},
		"has run, hardly":        {Thread{'R', ms, ms}, Thread{'R', 20 * ms, 50 * ms}, true},
		"runs, and waited a bit": {Thread{'R', ms, ms}, Thread{'R', 200 * ms, 60 * ms}, false},
	} {
		if got := Starved(map[string]Thread{"1": tt.before}, map[string]Thread{"1": tt.after}, d); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if own, known := proc.Threads(os.Getpid())[strconv.Itoa(os.Getpid())]; !known || own.State == 0 || own.Ran == 0 {
		t.Errorf("the first thread of this process: %v", own)
	}
}
