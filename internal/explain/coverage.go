package explain

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/explain/critical"
)

// Coverage says how much of the time from the caller's request to the container's first
// instruction has a named owner.
type Coverage struct {
	Total time.Duration
	// BySpan is the time whose owner a span names; Inferred that whose owner follows
	// from facts about a span's maker, from what lies beside it, or from a cause;
	// Unnamed the rest.
	BySpan, Inferred, Unnamed time.Duration
	// Stretches are the longer pieces of the path in which no span says what went on.
	Stretches []Stretch
}

// Stretch is a piece of the critical path that only an outer span covers, or none.
type Stretch struct {
	critical.Segment
	// Named: its owner is known all the same. Cause is the rule that explains it, "" if
	// none does.
	Named bool
	Cause string
}

// Share returns the share of the time that has no named owner, from 0 to 1.
func (c *Coverage) Share() float64 {
	if c.Total == 0 {
		return 0
	}
	return float64(c.Unnamed) / float64(c.Total)
}

// A piece without a span that is at least this long, and this share of the start, has to
// have its own explanation. A shorter one belongs to the span around it.
const (
	stretchTime  = 2 * time.Millisecond
	stretchShare = 0.01
)

func cover(s *critical.Start, found []causes.Cause) (c Coverage) {
	c.Total = s.Length()
	least := max(stretchTime, time.Duration(stretchShare*float64(c.Total)))
	for _, g := range s.Path {
		d := g.Length()
		dark := !g.Leaf || g.Node == nil || opaque(s, &g)
		if !dark || d < least {
			if g.Inferred {
				c.Inferred += d
			} else {
				c.BySpan += d
			}
			continue
		}
		st := Stretch{Segment: g, Cause: causeOf(&g, found)}
		st.Named = g.Inferred || st.Cause != "" || alone(s, &g)
		c.Stretches = append(c.Stretches, st)
		switch {
		case !st.Named:
			c.Unnamed += d
		case g.Inferred || st.Cause != "":
			c.Inferred += d
		default:
			c.BySpan += d
		}
	}
	return c
}

// opaque reports whether a span has nothing below it although others work for it: a call
// of a runtime whose helpers or VM are not recorded.
func opaque(s *critical.Start, g *critical.Segment) bool {
	return critical.IsCall(g.Node) && (s.VM || !s.Processes)
}

// alone reports whether only the maker of the span can have been at work: what it
// would have started is recorded.
func alone(s *critical.Start, g *critical.Segment) bool {
	if g.Node == nil {
		return false
	}
	switch g.Layer {
	case critical.Runtime:
		return s.Requests // else it may wait for the agent
	case critical.Shim:
		return s.Processes || !critical.IsCall(g.Node)
	}
	return true
}

// causeOf returns the rule that explains most of a segment, "" if none explains half.
func causeOf(g *critical.Segment, found []causes.Cause) string {
	for _, c := range found {
		var sum time.Duration
		for _, at := range c.Explains {
			sum += at.Intersect(g.Interval).Length()
		}
		if sum >= g.Length()/2 {
			return c.ID
		}
	}
	return ""
}
