package causes

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// hook finds OCI hooks that take long.
func hook(f *facts) *Cause {
	hooks := f.match(critical.IsHook)
	c := f.spent(hooks, "Hooks of the container took %s")
	if c == nil {
		return nil
	}
	n := longest(hooks)
	c.Sentence = fmt.Sprintf("The hook %s%s took %s", title(n), f.which(n), dur(c.Cost))
	if n.Parent() != nil && n.Parent().Span != nil {
		c.Evidence = append(c.Evidence, "run by "+title(n.Parent()))
	}
	return c
}

// slowShim is a time for a shim's start that a healthy host stays below.
const slowShim = 500 * time.Millisecond

// ownShim finds an inner shim that takes long until it serves.
func ownShim(f *facts) *Cause {
	inner := f.byName[names.InnerStart]
	n := longest(inner)
	if n == nil || !f.unusual(length(n), slowShim, title(n)) {
		return nil
	}
	c := f.spent(inner, "The sandbox waited %s for its own shim: the inner shim took that long until it served")
	if c != nil && n.Span.Failed {
		c.Evidence = append(c.Evidence, waterfall.Clean(n.Span.Message()))
	}
	return c
}

// lostSpans finds holes in the picture.
func lostSpans(f *facts) *Cause {
	c := &Cause{}
	for _, n := range f.nodes {
		if n.Span.Attr(names.Placeholder) != "" && !lifeLong(n) {
			c.Evidence = append(c.Evidence, fmt.Sprintf("%s stands for one that never arrived, above %s", title(n), title(n.Children[0])))
		}
		if lost := n.Span.Number(names.ResumeLost); lost > 0 {
			c.Evidence = append(c.Evidence, fmt.Sprintf("%.0f ended with a relay (%s)", lost, waterfall.Clean(n.Span.Attr(names.ResumeCause))))
		}
	}
	lost := f.lost()
	for _, reason := range slices.Sorted(maps.Keys(lost)) {
		if n := lost[reason]; n > 0 {
			c.Evidence = append(c.Evidence, fmt.Sprintf("the journal counted %d as lost meanwhile (%s), of this or other sandboxes", n, waterfall.Clean(reason)))
		}
	}
	if len(c.Evidence) == 0 {
		return nil
	}
	c.Sentence = "Some spans of this sandbox were lost: time without a span may have had one"
	return c
}

// lossTime is how long after a start the journal counts its losses, at the latest: with the
// next append, and agents send their spans every five seconds.
const lossTime = 10 * time.Second

// lost returns what was counted as lost during the start, by reason. Spans whose retention
// has ended, or that are kept from a backend only, are not lost.
func (f *facts) lost() map[string]int {
	lost := make(map[string]int)
	for _, l := range f.losses {
		at := uint64(l.At.UnixNano())
		if !losses.Intended(l.Reason) && f.From <= at && at <= f.To+uint64(lossTime) {
			lost[l.Reason] += l.Spans
		}
	}
	return lost
}

// lifeLong reports whether a placeholder stands for a span that lasts as long as the
// agent or the sandbox, and so never arrives from a VM that is killed.
func lifeLong(n *waterfall.Node) bool {
	for _, c := range n.Children {
		up := kata.ParentSpan(c.Name())
		if !slices.Contains(kata.LifeLong[:], up) && !strings.Contains(c.Name(), "wait_process") && n.Name() != names.LostRuntimeSpan {
			return false
		}
	}
	return len(n.Children) > 0
}

// failedStart is the rule of what failed.
const failedStart = "failed-start"

// failed finds the call that failed the start.
func failed(f *facts) *Cause {
	for _, method := range []string{"Start", "Create"} {
		for _, n := range f.calls[method] {
			if !n.Span.Failed || n.Span.Exec() != "" {
				continue
			}
			return &Cause{
				Sentence: fmt.Sprintf("%s%s failed: %s", title(n), f.which(n), firstLine(n.Span)),
				Evidence: []string{f.say(n) + ", " + waterfall.Clean(n.Span.Code())},
			}
		}
	}
	return nil
}

func firstLine(s *waterfall.Span) string {
	line, _, _ := strings.Cut(s.Message(), "\n")
	return waterfall.Clean(line)
}

// slowOurs is a time for our own work that is a fault.
const slowOurs = 100 * time.Millisecond

// ours finds time that shimtrace itself took.
func ours(f *facts) *Cause {
	var most *critical.Segment
	explains, cost := f.path(func(g *critical.Segment) bool {
		if g.Layer == critical.Ours && (most == nil || g.Length() > most.Length()) {
			most = g
		}
		return g.Layer == critical.Ours
	})
	if !f.worth(cost) || !f.unusual(cost, slowOurs, "shimtrace itself") {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("shimtrace itself took %s of the start", dur(cost)),
		Evidence: []string{fmt.Sprintf("%s of it in %s", dur(most.Length()), title(most.Node))}, Cost: cost, Explains: explains,
	}
}
