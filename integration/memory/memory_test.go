package memory

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.Exit(code)
}

// What a relay may take that is left alone, in bytes; docs/performance.md says of what.
const (
	maxRSS       = 9e6
	maxAnonymous = 5e6
)

// looked is more than a relay takes until it has given back what it can.
const looked = 2 * time.Minute

// TestRelayIdle: a relay whose pod has started and runs gives back what the start took.
func TestRelayIdle(t *testing.T) {
	for _, name := range []string{captured.Go, captured.Rust} {
		t.Run(name, func(t *testing.T) {
			r := start(t, name)
			before := usage(t, r.relay)
			r.live()
			// Where the start took so long that the relay has settled in between, it has given
			// back some by now, and looks again a minute later.
			most := highest(t, r.relay)
			time.Sleep(10 * time.Second)
			idle := usage(t, r.relay)
			much := func() bool { return idle.rss > maxRSS || idle.anonymous > maxAnonymous || idle.rss > most-2e6 }
			for end := time.Now().Add(looked); much() && time.Now().Before(end); time.Sleep(time.Second) {
				idle = usage(t, r.relay)
			}
			t.Logf("before the pod: %v; at most: RSS %.1f MB; idle 10 s later: %v", before, most/1e6, idle)
			if idle.rss > maxRSS || idle.anonymous > maxAnonymous {
				t.Errorf("it takes %v", idle)
			}
			if idle.rss > most-2e6 {
				t.Errorf("it gives back too little: %v of %.1f MB are left", idle, most/1e6)
			}
		})
	}
}

// taken is the memory of a process in bytes.
type taken struct{ rss, pss, anonymous float64 }

func (m taken) String() string {
	return fmt.Sprintf("RSS %.1f MB, anonymous %.1f MB", m.rss/1e6, m.anonymous/1e6)
}

// highest returns the most RSS that a process has had, in bytes.
func highest(t testing.TB, pid int) float64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	check(t, err)
	_, rest, _ := strings.Cut(string(text), "\nVmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	check(t, err)
	return kb * 1024
}

// usage returns the memory of a process as /proc/PID/smaps_rollup has it.
func usage(t testing.TB, pid int) (m taken) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	check(t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "Rss:":
			m.rss = kb * 1024
		case "Pss:":
			m.pss = kb * 1024
		case "Anonymous:":
			m.anonymous = kb * 1024
		}
	}
	return m
}
