package causes

import (
	"fmt"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// rescan finds the time that runtime-rs polls a network namespace at a Start: its
// request begins start_process late, and waits meanwhile.
func rescan(f *facts) *Cause {
	var starts []*waterfall.Node
	var most time.Duration
	var explains []waterfall.Interval
	var cost time.Duration
	for _, n := range f.byName[kata.TaskRequest] {
		at, ok := beforeFirst(n, "start_process")
		if !ok || at.Length() < 300*time.Millisecond || computing(n, at.Length()) {
			continue
		}
		starts = append(starts, n)
		most = max(most, at.Length())
		pieces, sum := f.within(at)
		explains, cost = append(explains, pieces...), cost+sum
	}
	if len(starts) == 0 {
		return nil
	}
	c := &Cause{Cost: cost, Inferred: true, Explains: explains}
	c.Sentence = fmt.Sprintf("%s waited up to %s before start_process: probably runtime-rs polled a network namespace without interfaces", upper(count(len(starts), "start")), dur(most))
	for _, n := range starts {
		at, _ := beforeFirst(n, "start_process")
		c.Evidence = append(c.Evidence, fmt.Sprintf("%s between %s and start_process%s, without a span; the runtime was idle", dur(at.Length()), n.Name(), f.which(n)))
	}
	return c
}

// beforeFirst returns the time from a node's start to its first child of that name, if
// no other child began in it.
func beforeFirst(n *waterfall.Node, child string) (at waterfall.Interval, ok bool) {
	for _, c := range n.Children {
		if c.Span == nil {
			continue
		}
		if c.Name() != child {
			return at, false
		}
		return waterfall.Interval{From: n.Start(), To: c.Start()}, c.Start() > n.Start()
	}
	return at, false
}

// computing reports whether a Rust span says that it was busy for half of the time.
func computing(n *waterfall.Node, d time.Duration) bool {
	return n.Span.Number("busy_ns") > float64(d)/2
}

// statsLock finds calls that waited until Stats was answered: from their beginning, or
// where the caller asks for a state before it goes on.
func statsLock(f *facts) *Cause {
	var waited time.Duration
	var explains []waterfall.Interval
	var evidence []string
	stats := 0
	for i := range f.Path {
		g := &f.Path[i]
		call := g.Node
		if call == nil {
			call = f.asked(g.Interval)
		}
		if call == nil || g.Node != nil && (g.Layer != critical.Runtime || g.After != nil) {
			continue
		}
		for _, n := range f.calls["Stats"] {
			if n != call && n.Start() < g.From && mostOf(n, g.Interval) && n.End() <= g.To+uint64(g.Length()/10) {
				stats++
				waited += g.Length()
				explains = append(explains, g.Interval)
				evidence = append(evidence, fmt.Sprintf("%s began %s into %s and went on when it ended", title(call), dur(time.Duration(max(g.From, call.Start())-n.Start())), f.say(n)))
				break
			}
		}
	}
	if !f.worth(waited) {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("Calls waited %s until Stats of %s were answered: probably for the runtime's lock", dur(waited), count(stats, "container")),
		Evidence: evidence, Cost: waited, Explains: explains, Inferred: true,
	}
}

// timedOut reports whether a call was given up, by its code (gRPC's names) or its message.
func timedOut(n *waterfall.Node) bool {
	return has(n.Span.Code(), "abandoned", "DEADLINE_EXCEEDED") || has(strings.ToLower(n.Span.Message()), "timed out", "deadline exceeded")
}

// stateTimeouts finds State calls that were given up while a container was created.
func stateTimeouts(f *facts) *Cause {
	var given []*waterfall.Node
	for _, n := range f.calls["State"] {
		if timedOut(n) && f.during(n, "Create") != nil {
			given = append(given, n)
		}
	}
	if len(given) == 0 {
		return nil
	}
	create := f.during(given[0], "Create")
	return &Cause{
		Sentence: fmt.Sprintf("containerd gave up %s while Create%s was slow: the shim answers no State until Create is over", count(len(given), "State call"), f.which(create)),
		Evidence: []string{f.say(longest(given)) + ", " + waterfall.Clean(given[0].Span.Code()), f.say(create)},
	}
}

// during returns a call of the method in whose time n began, nil if there is none.
func (f *facts) during(n *waterfall.Node, method string) *waterfall.Node {
	for _, c := range f.calls[method] {
		if c.Start() <= n.Start() && n.Start() < c.End() {
			return c
		}
	}
	return nil
}

// policy finds the agent's policy: setting it takes long, or it forbids a request.
func policy(f *facts) *Cause {
	set := f.match(func(n *waterfall.Node) bool {
		return n.Name() == "set_policy" || n.Name() == "ttrpc.SetPolicy" || n.Name() == kata.AgentService+"/SetPolicy"
	})
	asked := f.match(func(n *waterfall.Node) bool {
		return n.Maker() == waterfall.ByAgent && has(n.Name(), "is_allowed", "allow_request", "post_to_opa", "do_allow")
	})
	denied := f.match(func(n *waterfall.Node) bool {
		return n.Span.Failed && (n.Span.Code() == "PERMISSION_DENIED" && (critical.IsRequest(n) || critical.IsCall(n)) || has(n.Span.Message(), "blocked by policy"))
	})
	if len(denied) > 0 {
		n := denied[0]
		return &Cause{
			Sentence: fmt.Sprintf("The agent's policy forbids %s%s", title(n), f.which(n)),
			Evidence: []string{fmt.Sprintf("%s failed: %s", title(n), waterfall.Clean(n.Span.Message()))},
		}
	}
	explains, cost := f.under(append(set, asked...))
	if !f.worth(cost) {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("The agent's policy took %s", dur(cost)),
		Evidence: []string{f.say(longest(append(set, asked...)))}, Cost: cost, Explains: explains,
	}
}

// virtiofs finds mounts of virtio-fs in the guest that take long.
func virtiofs(f *facts) *Cause {
	mounts := f.match(func(n *waterfall.Node) bool {
		return n.Maker() == waterfall.ByAgent && length(n) >= worthTime && strings.Contains(n.Span.Attr("fs_type"), "virtio")
	})
	// A container's root file system is a directory of the shared one.
	mounts = append(mounts, f.match(func(n *waterfall.Node) bool {
		return n.Maker() == waterfall.ByAgent && n.Name() == "baremount" && length(n) >= worthTime && strings.Contains(n.Span.Attr("source"), "/shared/containers/")
	})...)
	explains, cost := f.under(mounts)
	if !f.worth(cost) {
		return nil
	}
	n := longest(mounts)
	return &Cause{
		Sentence: fmt.Sprintf("Mounting the shared file system in the guest took %s: virtio-fs is slow", dur(cost)),
		Evidence: []string{fmt.Sprintf("%s: %s at %s", title(n), dur(length(n)), waterfall.Clean(n.Span.Attr("destination")))},
		Cost:     cost, Explains: explains,
	}
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
