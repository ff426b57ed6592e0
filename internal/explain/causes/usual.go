package causes

import (
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/names"
)

// maxSlowdown bounds by how much longer than usual everything may take on a host without
// CPU time to spare: what takes even longer has another cause.
const maxSlowdown = 8

// slowdown returns by how much longer than on a quiet host things take, for want of CPU
// time: 1 if the host was not short of it. In a queue that is busy for the share p of the
// time, all takes 1/(1-p) times as long.
func (f *facts) slowdown() float64 {
	if !f.short(cpuTime) {
		return 1
	}
	return min(maxSlowdown, 1/(1-min(f.pressed(cpuTime), 1-1.0/maxSlowdown)))
}

// unusual reports whether something took longer than it does on a healthy host, and longer
// than the want of CPU time explains. What the want of CPU time does explain is noted for the
// rule hostPressure.
func (f *facts) unusual(d, usual time.Duration, what string) bool {
	switch {
	case d < usual:
		return false
	case float64(d) >= f.slowdown()*float64(usual):
		return true
	}
	f.explained = append(f.explained, fmt.Sprintf("%s took %s, usually less than %s: probably for that reason", what, dur(d), dur(usual)))
	f.covered = append(f.covered, f.rule)
	return false
}

// waited returns for how long processes of the host waited for a resource, without those
// that the pod's own CPU limit held: they want CPU time as well, but the host has it.
func (f *facts) waited(p pressureOf) time.Duration {
	d := f.evidence(p.key)
	if p == cpuTime {
		d -= min(d, f.evidence(names.Throttled))
	}
	return d
}

// short reports whether the host was short of a resource for long enough to matter.
func (f *facts) short(p pressureOf) bool {
	d := f.waited(p)
	return f.worth(d) && d >= leastPressure && f.pressed(p) >= p.share
}

// pressed returns the share of the sandbox's start, in which it was measured, for which
// processes of the host waited for a resource.
func (f *facts) pressed(p pressureOf) float64 {
	n := longest(f.byName[names.SandboxStart])
	if n == nil || length(n) == 0 {
		return 0
	}
	return float64(f.waited(p)) / float64(length(n))
}

// leastPressure is the least time waited that is worth a word, however short the start is.
const leastPressure = 100 * time.Millisecond
