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

// ownShim finds an inner shim that takes long until it serves.
func ownShim(f *facts) *Cause {
	inner := f.byName[names.InnerStart]
	n := longest(inner)
	if n == nil || length(n) < 500*time.Millisecond {
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
	for _, reason := range slices.Sorted(maps.Keys(f.lost)) {
		if n := f.lost[reason]; n > 0 && reason != losses.Retention.String() {
			c.Evidence = append(c.Evidence, fmt.Sprintf("the journal lost %d (%s), of this or other sandboxes", n, waterfall.Clean(reason)))
		}
	}
	if len(c.Evidence) == 0 {
		return nil
	}
	c.Sentence = "Some spans of this sandbox were lost: time without a span may have had one"
	return c
}

// lifeLong reports whether a placeholder stands for a span that lasts as long as the
// agent or the sandbox, and so never arrives of a VM that is killed.
func lifeLong(n *waterfall.Node) bool {
	for _, c := range n.Children {
		up := kata.ParentSpan(c.Name())
		if !slices.Contains(kata.LifeLong[:], up) && !strings.Contains(c.Name(), "wait_process") && n.Name() != names.LostRuntimeSpan {
			return false
		}
	}
	return len(n.Children) > 0
}

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

// ours finds time that shimtrace itself took.
func ours(f *facts) *Cause {
	explains, cost := f.path(func(g *critical.Segment) bool { return g.Layer == critical.Ours })
	if cost < 100*time.Millisecond || !f.worth(cost) {
		return nil
	}
	return &Cause{
		Sentence: fmt.Sprintf("shimtrace itself took %s of the start", dur(cost)),
		Evidence: []string{"self time of shim start and relay spawn: " + dur(cost)}, Cost: cost, Explains: explains,
	}
}
