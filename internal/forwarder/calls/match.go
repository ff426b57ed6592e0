package calls

import (
	"math"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// likeness tells how well the ids of a span match those of a call.
type likeness int

const (
	otherIDs      likeness = iota // different containers or processes
	noIDs                         // the ids do not say
	sameContainer                 // execs of one container, by different names
	sameProcess
)

// compare compares ids. One exec can have two names: the Go runtime names execs anew towards
// the agent (container.go, EnterContainer), while runtime-rs keeps containerd's names.
// The exec of a container's first process is always empty.
func (c *call) compare(container, exec string) likeness {
	switch {
	case container == "" || c.ContainerID == "":
		return noIDs
	case container != c.ContainerID || (exec == "") != (c.ExecID == ""):
		return otherIDs
	case exec != c.ExecID:
		return sameContainer
	}
	return sameProcess
}

// rank orders candidates: by the first number, then by the next.
type rank [6]int64

func (r rank) over(other rank) bool { return slices.Compare(r[:], other[:]) > 0 }

// best returns the highest ranked call of methods for which can is true; nil if there is none.
func (c *Calls) best(methods []string, likely func(known *call, order int) (r rank, can bool)) *call {
	var best *call
	var bestRank rank
	for order, method := range methods {
		if all := c.byMethod[method]; all != nil {
			for _, known := range all.all {
				if r, can := likely(known, order); can && (best == nil || r.over(bestRank)) {
					best, bestRank = known, r
				}
			}
		}
	}
	return best
}

func one(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// match is the call that caused an agent's request; nil: no known call did.
type match struct {
	*call
	likeness
	// sure: no other call is possible, whatever the clocks say.
	sure bool
}

// caller returns the call that caused the request which an agent's span serves. Among the calls
// with the best matching ids it is the nearest that can enclose the span. An ExecProcess
// teaches the guest's name of the exec.
func (c *Calls) caller(s *Span) (m match) {
	if s.request == nil || len(s.request.CausedBy) == 0 {
		return m
	}
	exec := s.ExecID
	if known, ok := c.execs.Get(exec); ok {
		exec = known
	}
	guest := s.at
	_, possible, expected := c.clock.near(guest.middle())
	start := plus(guest.Start, expected)
	candidates := 0
	m.call = c.best(s.request.CausedBy, func(known *call, order int) (r rank, can bool) {
		like := known.compare(s.ContainerID, exec)
		if like == otherIDs || like < m.likeness {
			return r, false
		}
		if like > m.likeness {
			m.likeness, candidates = like, 0
		}
		candidates++
		where, distance := known.position(start, skew)
		r = rank{0: int64(like), 4: int64(-where), 5: -distance}
		// How much farther than expected the clock is off, if the span was within the call.
		if b := offsets(guest, known.serving()).and(possible); b.possible() {
			if by := max(expected-b.End, b.Start-expected, 0); by <= skew {
				r[1], r[3] = 1, -by
				if s.request.Ordered {
					r[2] = int64(-order)
				}
			}
		}
		return r, true
	})
	m.sure = s.request.Once && candidates == 1 && (m.likeness == sameProcess || m.likeness == noIDs && s.ContainerID == "")
	if m.likeness == sameContainer && s.request.Name == kata.ExecProcess {
		c.execs.Put(s.ExecID, m.ExecID)
	}
	return m
}

// during returns the recorded call in flight at a moment that can have caused an agent's span
// without a request; nil if there is none.
func (c *Calls) during(at, skew int64, container string) *call {
	return c.best(causing, func(known *call, _ int) (r rank, can bool) {
		if container != "" && known.ContainerID != "" && known.ContainerID != container || known.Quiet || !c.recorded(known) {
			return r, false
		}
		where, distance := known.position(at, skew)
		return rank{int64(-where), -distance}, where <= around
	})
}

// serving returns the call that a runtime's span serves, nil if there is none. Of the calls
// with its method and matching ids it prefers one without a span of this name yet, then one
// that encloses the span.
func (c *Calls) serving(s *Span) *call {
	if s.served != nil || !s.IsCall() {
		return s.served
	}
	at := s.at
	s.served = c.best([]string{s.method}, func(known *call, _ int) (r rank, can bool) {
		like := known.compare(s.ContainerID, s.ExecID)
		where, distance := known.position(at.Start, closeEnough)
		holds := known.start-closeEnough <= at.Start && (known.end == math.MaxInt64 || at.End <= known.end+closeEnough)
		r = rank{int64(like), one(!slices.Contains(known.seen, s.Name)), one(holds), int64(-where), -distance}
		return r, like != otherIDs && where <= around
	})
	if s.served != nil {
		s.served.see(s.Name)
	}
	return s.served
}

// skew is how far, in nanoseconds, the guest's clock may be from its estimate when calls are
// found by time.
const skew = int64(2 * time.Second)

// closeEnough is how far, in nanoseconds, a runtime's span may exceed the call that it serves:
// its times are whole microseconds.
const closeEnough = int64(1e6)

// Positions of a moment relative to a call, the likeliest first.
const (
	inside = iota
	around // outside, by no more than the clocks may be off
	after
	before
)

// position returns where a moment lies relative to the call, and a distance that is smaller for
// likelier calls in the same position.
func (c *call) position(at, skew int64) (where int, distance int64) {
	switch {
	case c.start <= at && at <= c.end:
		return inside, at - c.start
	case at < c.start && c.start-at <= skew:
		return around, c.start - at
	case at > c.end && at-c.end <= skew:
		return around, at - c.end
	case at > c.end:
		return after, at - c.start
	}
	return before, c.start - at
}
