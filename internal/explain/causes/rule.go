package causes

import (
	"cmp"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/explain/critical"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Rule is one known cause. Texts are for people, without a final full stop.
type Rule struct {
	// ID names the rule in JSON and documents.
	ID string
	// Looks says what the rule looks for.
	Looks string
	// Why says why it takes time, Source where that can be read.
	Why, Source string
	// Remedy says what to do.
	Remedy string

	find func(*facts) *Cause // without the rule
}

// Cause is a rule that a start's spans meet.
type Cause struct {
	*Rule
	// Sentence says what was slow and why; "probably" in it says that it is inferred.
	Sentence string
	Evidence []string
	// Cost is the time on the critical path that the cause explains, 0 if unknown.
	Cost     time.Duration
	Inferred bool
	// Covers are the rules that would name something else which this cause explains.
	Covers []string
	// Explains are the stretches of the critical path that it explains.
	Explains []waterfall.Interval
}

// Loss is a number of spans that the journal counted as lost, at a moment.
type Loss struct {
	At     time.Time
	Reason string
	Spans  int
}

// Find returns the causes in a start: what failed it, then the costliest first. losses are
// the journal's.
func Find(s *critical.Start, losses []Loss) (out []Cause) {
	f := newFacts(s, losses)
	for i := range Catalogue {
		r := &Catalogue[i]
		f.rule = r.ID
		if c := r.find(f); c != nil {
			c.Rule = r
			out = append(out, *c)
		}
	}
	for i := range out {
		if out[i].ID == hostPressure {
			out[i].Evidence, out[i].Covers = append(out[i].Evidence, f.explained...), f.covered
		}
	}
	slices.SortStableFunc(out, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(b.Cost, a.Cost))
	})
	return out
}

// rank is less for what is said first.
func (c Cause) rank() int {
	if c.ID == failedStart {
		return 0
	}
	return 1
}
