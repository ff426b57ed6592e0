package causes

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// facts is a start as the rules ask for it.
type facts struct {
	*critical.Start
	losses []Loss

	nodes  []*waterfall.Node            // that began before the start was over
	byName map[string][]*waterfall.Node // the same
	calls  map[string][]*waterfall.Node // of the shim, by the task service's method

	// explained says what took long for want of CPU time alone, covered which rules would
	// have named it. rule is the one that is asked now.
	explained, covered []string
	rule               string
}

func newFacts(s *critical.Start, losses []Loss) *facts {
	f := &facts{Start: s, losses: losses, byName: make(map[string][]*waterfall.Node), calls: make(map[string][]*waterfall.Node)}
	for n := range s.Tree.All() {
		if n.Span == nil || n.Start() == 0 || n.Start() >= s.To || n.End() < s.From {
			continue
		}
		f.nodes = append(f.nodes, n)
		f.byName[n.Name()] = append(f.byName[n.Name()], n)
		if critical.IsCall(n) {
			m := kata.TaskMethod(critical.Method(n.Span))
			f.calls[m] = append(f.calls[m], n)
		}
	}
	return f
}

// Least lengths of what is worth a sentence: a share of the start, and a time that a
// person could notice.
const (
	worthShare = 0.05
	worthTime  = 50 * time.Millisecond
)

// worth reports whether the time is worth a sentence.
func (f *facts) worth(d time.Duration) bool {
	return d >= worthTime && float64(d) >= worthShare*float64(f.Length())
}

// path returns the pieces of the critical path that match, and their length in all.
func (f *facts) path(match func(*critical.Segment) bool) (all []waterfall.Interval, sum time.Duration) {
	for i := range f.Path {
		if g := &f.Path[i]; match(g) {
			all = append(all, g.Interval)
			sum += g.Length()
		}
	}
	return all, sum
}

// under returns the pieces of the path within the nodes or below them.
func (f *facts) under(nodes []*waterfall.Node) ([]waterfall.Interval, time.Duration) {
	is := make(map[*waterfall.Node]bool, len(nodes))
	stack := slices.Clone(nodes)
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if !is[n] {
			is[n] = true
			stack = append(stack, n.Children...)
		}
	}
	return f.path(func(g *critical.Segment) bool { return g.Node != nil && is[g.Node] })
}

// within returns the pieces of the path that lie in an interval, and their length.
func (f *facts) within(at waterfall.Interval) (all []waterfall.Interval, sum time.Duration) {
	for i := range f.Path {
		if both := at.Intersect(f.Path[i].Interval); both.Length() > 0 {
			all = append(all, both)
			sum += both.Length()
		}
	}
	return all, sum
}

// mostOf reports whether a span covers most of an interval.
func mostOf(n *waterfall.Node, at waterfall.Interval) bool {
	return n.Interval().Intersect(at).Length() >= at.Length()*8/10
}

// asked returns the longest call that asks the shim for something during most of an
// interval, nil if there is none. Nobody's start waits for a process's end, or for
// statistics.
func (f *facts) asked(at waterfall.Interval) *waterfall.Node {
	return longest(f.match(func(n *waterfall.Node) bool {
		if !critical.IsCall(n) || !mostOf(n, at) {
			return false
		}
		m := kata.TaskMethod(critical.Method(n.Span))
		return m != "Stats" && !kata.Waits(m)
	}))
}

// match returns the nodes for which ok reports true.
func (f *facts) match(ok func(*waterfall.Node) bool) (out []*waterfall.Node) {
	for _, n := range f.nodes {
		if ok(n) {
			out = append(out, n)
		}
	}
	return out
}

// evidence returns the value of a number attribute of "sandbox start" in nanoseconds.
func (f *facts) evidence(key string) time.Duration {
	var most float64
	for _, n := range f.byName[names.SandboxStart] {
		most = max(most, n.Span.Number(key))
	}
	return time.Duration(most)
}

func length(n *waterfall.Node) time.Duration { return n.Interval().Length() }

// longest returns the longest node, nil without nodes.
func longest(nodes []*waterfall.Node) *waterfall.Node {
	if len(nodes) == 0 {
		return nil
	}
	return slices.MaxFunc(nodes, func(a, b *waterfall.Node) int { return int(length(a) - length(b)) })
}

// title returns a node's name as a picture has it.
func title(n *waterfall.Node) string { return waterfall.Clean(n.Title()) }

// which returns " of <container>" for a span about one, "" otherwise.
func (f *facts) which(n *waterfall.Node) string {
	id := ""
	for up := n; up != nil && up.Span != nil && id == ""; up = up.Parent() {
		id = up.Span.Container()
	}
	if id == "" || id == f.Story.Sandbox {
		return ""
	}
	if name := f.Story.ContainerName(id); name != "" {
		return " of " + waterfall.Clean(name)
	}
	return " of " + waterfall.ShortID(id)
}

// say formats a span as evidence: its name, container and length.
func (f *facts) say(n *waterfall.Node) string {
	return fmt.Sprintf("%s%s: %s", title(n), f.which(n), dur(length(n)))
}

func dur(d time.Duration) string { return waterfall.Duration(d) }

// share returns a part in per cent of the start.
func (f *facts) share(d time.Duration) string {
	return fmt.Sprintf("%.0f %% of the start", 100*float64(d)/float64(max(1, f.Length())))
}

func has(name string, words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
}

// count returns "one start", "3 starts".
func count(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
