package calls

import (
	"math"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// likeness is what the ids of a span and of a call say about whether they are of one
// process.
type likeness int

const (
	otherIDs      likeness = iota // of different containers, or processes
	noIDs                         // the ids do not say
	sameContainer                 // both execs of one container, by different names
	sameProcess
)

// compare compares ids. The Go runtime gives execs names of its own towards the agent
// (container.go, EnterContainer), runtime-rs those of containerd, so two names can
// be of one exec; that of a container's first process is always empty.
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

// rank says how likely a call is meant: by what comes first, then by what comes next.
type rank [6]int64

func (r rank) over(other rank) bool { return slices.Compare(r[:], other[:]) > 0 }

// best returns the call of some methods that is the likeliest meant, of those that can be
// at all; nil if none can.
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

// match is the call that caused an agent's request; nil: none is known.
type match struct {
	*call
	likeness
	// sure: no other call could be meant, whatever the clocks say.
	sure bool
}

// caller returns the call that caused the request which a span of the agent's serves: of
// those with the likest ids the nearest that it can have been within. A pair that is sure
// tells about the guest's names of execs.
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
		// By how much more than expected the clock is off, if it was within the call.
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

// during returns the call in flight at a moment that can have caused something on its own
// behalf, and is recorded; nil if there is none.
func (c *Calls) during(at, skew int64, container string) *call {
	return c.best(causing, func(known *call, _ int) (r rank, can bool) {
		if container != "" && known.ContainerID != "" && known.ContainerID != container || c.isQuiet(known.Method) || !c.recorded(known) {
			return r, false
		}
		where, distance := known.position(at, skew)
		return rank{int64(-where), -distance}, where <= around
	})
}

// serving returns the call that a span of the runtime's is the serving of: of those
// of its method and its ids one that holds it whole, and none for which a span of
// this name has been before, if there are others. It is nil if there is none.
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

// skew is how far, in nanoseconds, the guest's clock may be off from what is expected of it
// when calls are found by time.
const skew = int64(2 * time.Second)

// closeEnough is how far, in nanoseconds, a runtime's span may stick out of the call
// that it serves: it has whole microseconds.
const closeEnough = int64(1e6)

// Where a moment is seen from a call, the likeliest first.
const (
	inside = iota
	around // outside by no more than the clocks may be off
	after
	before
)

// position tells where a moment is seen from a call, and among calls of which that
// is the same, how unlikely this one is.
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
