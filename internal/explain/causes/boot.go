package causes

import (
	"fmt"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// slowBoot is the time for a guest's boot that a microVM with KVM stays below.
const slowBoot = 2 * time.Second

// attempts returns the attempts to reach the agent that the VM's boot counted, 0 if unknown.
func (f *facts) attempts() int {
	n := 0
	for _, b := range f.byName[names.VMBoot] {
		n = max(n, int(b.Span.Number(names.VMAttempts)))
	}
	return n
}

// lateAgent finds a guest whose boot, until the agent listens, takes long.
func lateAgent(f *facts) *Cause {
	explains, cost := f.path(func(g *critical.Segment) bool { return g.Layer == critical.GuestKernel })
	if !f.worth(cost) || !f.unusual(cost, slowBoot, "the guest's boot") {
		return nil
	}
	c := &Cause{Cost: cost, Explains: explains, Inferred: len(f.byName[names.GuestBoot]) == 0}
	attempts := ""
	if n := f.attempts(); n > 0 {
		attempts = fmt.Sprintf(" in %d attempts", n)
	}
	c.Sentence = fmt.Sprintf("The runtime tried for %s%s until the agent in the VM answered: %sthe guest boots slowly", dur(cost), attempts, probably(c.Inferred))
	seen := make(map[*waterfall.Node]bool)
	for i := range f.Path {
		if g := &f.Path[i]; g.Layer == critical.GuestKernel && !seen[g.Node] {
			seen[g.Node] = true
			c.Evidence = append(c.Evidence, f.say(g.Node))
		}
	}
	for _, b := range f.byName[names.VMBoot] {
		if vmm := b.Span.Attr(names.VMProgram); vmm != "" {
			c.Evidence = append(c.Evidence, "VMM: "+waterfall.Clean(vmm))
		}
	}
	return c
}

// slowConnect is more than the time from the agent's first span to its first request that a
// runtime takes if it does not sleep.
const slowConnect = 200 * time.Millisecond

// backoff finds an agent that was up long before the runtime reached it.
func backoff(f *facts) *Cause {
	up := f.byName[names.AgentConnect]
	var cost time.Duration
	var explains []waterfall.Interval
	for _, n := range up {
		pieces, sum := f.within(n.Interval())
		explains, cost = append(explains, pieces...), cost+sum
	}
	if !f.worth(cost) || !f.unusual(cost, slowConnect, "the connection to the agent") {
		return nil
	}
	n := longest(up)
	evidence := []string{f.say(n)}
	if a := f.attempts(); a > 0 {
		evidence = append(evidence, fmt.Sprintf("%d attempts in all", a))
	}
	return &Cause{
		Sentence: fmt.Sprintf("The agent was up %s before its first request came through: probably the runtime slept between its attempts to connect over VSOCK", dur(cost)),
		Evidence: evidence, Cost: cost, Explains: explains, Inferred: true,
	}
}

// slowVMM is the time for a VMM's own start that is remarkable.
const slowVMM = time.Second

// vmmStart finds a VMM that takes long until its socket is there.
func vmmStart(f *facts) *Cause {
	explains, cost := f.path(func(g *critical.Segment) bool { return g.Layer == critical.VMM })
	if !f.worth(cost) || !f.unusual(cost, slowVMM, "the VMM's start") {
		return nil
	}
	c := &Cause{Cost: cost, Explains: explains, Inferred: len(f.byName[names.VMMStart]) == 0}
	c.Sentence = fmt.Sprintf("The VMM took %s to start, before the guest's kernel", dur(cost))
	for i := range f.Path {
		if g := &f.Path[i]; g.Layer == critical.VMM && g.Length() >= worthTime {
			what := f.say(g.Node)
			if !g.Leaf {
				what = stretch(g)
			}
			c.Evidence = append(c.Evidence, what)
		}
	}
	if c.Inferred {
		c.Sentence = fmt.Sprintf("The VMM probably took %s to start, before the guest's kernel", dur(cost))
	}
	return c
}

// guestDebug finds debugging parameters in the guest's command line.
func guestDebug(f *facts) *Cause {
	for _, b := range f.byName[names.VMBoot] {
		words := b.Span.Attr(names.VMDebug)
		if words == "" {
			continue
		}
		_, cost := f.path(func(g *critical.Segment) bool { return g.Layer == critical.GuestKernel || g.Layer == critical.VMM })
		return &Cause{
			Sentence: fmt.Sprintf("The guest boots with parameters for debugging (%s): it prints all it does to a slow console", waterfall.Clean(strings.ReplaceAll(words, ",", ", "))),
			Evidence: []string{names.VMDebug + "=" + waterfall.Clean(words), f.say(b)}, Cost: cost, Inferred: true,
		}
	}
	return nil
}

// stretch says where a stretch without a span lies.
func stretch(g *critical.Segment) string { return dur(g.Length()) + " " + g.Where() }

func probably(inferred bool) string {
	if inferred {
		return "probably "
	}
	return ""
}
