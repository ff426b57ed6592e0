package causes

import (
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// throttled finds a start that the pod's own CPU limit slowed down.
func throttled(f *facts) *Cause {
	d := f.evidence(names.Throttled)
	if !f.worth(d) {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("The pod's CPU limit held its processes for %s during the start", dur(d)),
		Evidence: []string{fmt.Sprintf("the pod's cgroup was throttled for %s, %s (%s)", dur(d), f.share(d), names.Throttled)}, Cost: min(d, f.Length()), Inferred: true,
	}
}

// pressureOf is a resource that a host may lack.
type pressureOf struct {
	key, what string
	share     float64 // of the start
}

// cpuTime is the resource whose lack makes all else slow.
var cpuTime = pressureOf{names.PressureCPU, "CPU time", 0.3}

// pressures are the resources whose lack the kernel measures.
var pressures = [...]pressureOf{
	cpuTime,
	{names.PressureIO, "disks", 0.2},
	{names.PressureMemory, "memory", 0.1},
}

// pressure finds a host whose processes waited for a resource.
func pressure(f *facts) *Cause {
	var c *Cause
	for _, p := range pressures {
		if !f.short(p) {
			continue
		}
		d := f.waited(p)
		if c == nil {
			c = &Cause{Inferred: true, Sentence: fmt.Sprintf("The host was short of %s: processes waited for %s of the start's %s", p.what, dur(d), dur(f.Length()))}
		}
		evidence := fmt.Sprintf("processes waited for %s during %s, %.0f %% of the sandbox's start (%s)", p.what, dur(d), 100*f.pressed(p), p.key)
		if held := f.evidence(p.key) - d; held > 0 {
			evidence += fmt.Sprintf(", not counting the %s for which the pod's CPU limit held it", dur(held))
		}
		c.Evidence = append(c.Evidence, evidence)
		c.Cost = max(c.Cost, min(d, f.Length()))
	}
	return c
}

// coldFaults is a number of pages read from disk that tells of a cold cache.
const coldFaults = 50

// faultTime is the least time that a page fault takes if it waits for a flash disk.
const faultTime = 100 * time.Microsecond

// coldCache finds programs and images that had to be read from disk, if that took long:
// as long as processes of the host waited for disks, where the kernel counts that.
func coldCache(f *facts) *Cause {
	var c *Cause
	pages := 0.0
	for _, n := range f.match(critical.IsCall) {
		inner, vmm := n.Span.Number(names.InnerFaults), n.Span.Number(names.VMMFaults)
		if inner+vmm < coldFaults || !f.worth(length(n)) {
			continue
		}
		if c == nil {
			who := "The shim"
			if vmm > inner {
				who = "The VMM"
			}
			c = &Cause{Inferred: true, Sentence: fmt.Sprintf("%s had to be read from disk during %s%s: probably the page cache was cold", who, title(n), f.which(n))}
		}
		pages += inner + vmm
		c.Evidence = append(c.Evidence, fmt.Sprintf("%s: %.0f major page faults of the shim, %.0f of the VMM", title(n), inner, vmm))
	}
	if c == nil {
		return nil
	}
	c.Cost = time.Duration(pages) * faultTime
	if f.text(names.PressureIO) != "" {
		c.Cost = f.evidence(names.PressureIO)
		c.Evidence = append(c.Evidence, fmt.Sprintf("processes of the host waited for disks for %s", dur(c.Cost)))
	}
	if c.Cost = min(c.Cost, f.Length()); !f.worth(c.Cost) {
		return nil
	}
	return c
}

// slowWait is a time that an OCI runtime waits for nothing on a healthy host.
const slowWait = 300 * time.Millisecond

// queueTime bounds how long a process waits for a CPU, as a multiple of the time that it has
// one, on a host that is short of CPU time.
const queueTime = 32

// waitedLong reports whether a helper waited for so long, without computing, that neither
// the want of a CPU nor the pod's limit explains it. A host that does not say whether it is
// short of CPU time counts as if it were.
func (f *facts) waitedLong(n *waterfall.Node, d time.Duration) bool {
	slowdown := f.slowdown()
	if f.text(cpuTime.key) == "" {
		slowdown = maxSlowdown
	}
	if slowdown > 1 {
		d -= queueTime * time.Duration(n.Span.Number(names.ProcessCPUTime))
	}
	return float64(d-f.evidence(names.Throttled)) >= slowdown*float64(slowWait)
}

// waiting returns the OCI runtimes that took long without computing.
func (f *facts) waiting() []*waterfall.Node {
	return f.match(func(n *waterfall.Node) bool {
		cpu := n.Span.Number(names.ProcessCPUTime)
		return critical.IsOCIRuntime(n) && n.Span.Attr(names.ProcessCPUTime) != "" && cpu < float64(length(n))/5 && f.waitedLong(n, length(n))
	})
}

// systemdCgroup finds an OCI runtime that waits for systemd.
func systemdCgroup(f *facts) *Cause {
	if f.text(names.CgroupManager) != "systemd" {
		return nil
	}
	return f.waits(f.waiting(), "probably for systemd, which makes the container's cgroup, or else for a disk")
}

// slowDisk finds an OCI runtime that waits for a disk. Where it may have waited for systemd
// as well, processes of the host must have waited for disks for half of that time.
func slowDisk(f *facts) *Cause {
	c := f.waits(f.waiting(), "probably for a disk or a lock")
	if c != nil && f.text(names.CgroupManager) == "systemd" && f.evidence(names.PressureIO) < c.Cost/2 {
		return nil
	}
	return c
}

// waits makes a cause of helpers that waited on the path, outside of hooks.
func (f *facts) waits(nodes []*waterfall.Node, whatFor string) *Cause {
	is := make(map[*waterfall.Node]bool)
	for _, n := range nodes {
		is[n] = true
	}
	explains, cost := f.path(func(g *critical.Segment) bool { return g.Node != nil && is[g.Node] })
	n := longest(nodes)
	if n == nil || !f.worth(cost) || !f.waitedLong(n, cost) {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("%s%s waited %s, %s", title(n), f.which(n), dur(cost), whatFor),
		Evidence: []string{fmt.Sprintf("%s, %s of CPU time", f.say(n), dur(time.Duration(n.Span.Number(names.ProcessCPUTime))))},
		Cost:     cost, Explains: explains, Inferred: true,
	}
}

// text returns an attribute of "sandbox start".
func (f *facts) text(key string) string {
	for _, n := range f.byName[names.SandboxStart] {
		if v := n.Span.Attr(key); v != "" {
			return v
		}
	}
	return ""
}
