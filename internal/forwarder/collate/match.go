package collate

import "math"

// kinship is what the ids of an agent's request and of a call say about them.
type kinship int

const (
	strangers     kinship = iota // of different containers, or processes
	unsaid                       // the ids do not say
	sameContainer                // both execs of one container, by different names
	sameProcess
)

// kin compares ids. The Go runtime gives execs names of its own towards the agent
// (container.go, EnterContainer), runtime-rs those of containerd, so two names can
// be of one exec; that of a container's first process is always empty.
func kin(c *call, container, exec string) kinship {
	switch {
	case container == "" || c.ContainerID == "":
		return unsaid
	case container != c.ContainerID || (exec == "") != (c.ExecID == ""):
		return strangers
	case exec != c.ExecID:
		return sameContainer
	}
	return sameProcess
}

// match is the call that caused an agent's RPC.
type match struct {
	call
	kin kinship
	// sure: no other call could be meant, whatever the clocks say.
	sure bool
}

// moment is when an RPC was, as far as the guest's clock is known.
type moment struct {
	guest    period
	possible bounds // offsets
	expected int64
}

func (c *clock) moment(guest period) moment {
	m := moment{guest: guest}
	_, m.possible, m.expected = c.near(middle(guest))
	return m
}

// start is when it probably began by the host's clock.
func (m *moment) start() int64 { return plus(m.guest.start, m.expected) }

// shiftInto returns by how much more than expected the guest's clock must be off for it to
// have been within a call, and whether that is possible and no more than skew.
func (m *moment) shiftInto(c *call, skew int64) (by int64, ok bool) {
	b := boundsOf(m.guest, c.serving()).and(m.possible)
	if !b.possible() {
		return 0, false
	}
	by = max(m.expected-b.hi, b.lo-m.expected, 0)
	return by, by <= skew
}

// match returns the call that caused an RPC: of those of its kin the nearest that it can
// have been within.
func (cs *calls) match(r *rpc, container, exec string, m moment, skew int64) (match, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var best *call
	var bestKin kinship
	var bestBy int64
	var bestFits bool
	candidates, bestOrder := 0, 0
	for order, method := range r.methods {
		ring := cs.byMethod[method]
		if ring == nil {
			continue
		}
		for _, c := range ring.all {
			k := kin(c, container, exec)
			if k == strangers || k < bestKin {
				continue
			}
			by, fits := m.shiftInto(c, skew)
			better := k > bestKin
			if better {
				candidates = 0
			} else if fits != bestFits {
				better = fits
			} else if fits && r.ordered && order != bestOrder {
				better = order < bestOrder
			} else if fits && by != bestBy {
				better = by < bestBy
			} else {
				better = closer(c, best, m.start(), skew)
			}
			candidates++
			if better {
				best, bestKin, bestBy, bestFits, bestOrder = c, k, by, fits, order
			}
		}
	}
	if best == nil {
		return match{}, false
	}
	sure := r.once && candidates == 1 && (bestKin == sameProcess || bestKin == unsaid && container == "")
	return match{call: *best, kin: bestKin, sure: sure}, true
}

// during returns the call whose interval holds a moment, of those that are no
// stranger to the container and not skipped.
func (cs *calls) during(at, skew int64, container string, skip func(*call) bool) (call, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	var best *call
	for _, ring := range cs.byMethod {
		for _, c := range ring.all {
			if container != "" && c.ContainerID != "" && c.ContainerID != container || skip(c) {
				continue
			}
			if p, _ := position(c, at, skew); p > around {
				continue
			}
			if best == nil || closer(c, best, at, skew) {
				best = c
			}
		}
	}
	if best == nil {
		return call{}, false
	}
	return *best, true
}

// Where a moment is seen from a call, the likeliest first.
const (
	inside = iota
	around // outside by no more than the clocks may be off
	after
	before
)

// position tells where a moment is seen from a call, and among calls of which that
// is the same, how unlikely this one is.
func position(c *call, at, skew int64) (int, int64) {
	switch {
	case c.holds(at):
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

func closer(a, b *call, at, skew int64) bool {
	ap, ad := position(a, at, skew)
	bp, bd := position(b, at, skew)
	return ap < bp || ap == bp && ad < bd
}

// serving returns the time within which what serves the call was done. One that failed
// may have been given up, and its serving gone on.
func (c *call) serving() period {
	if c.Failed {
		return period{c.start, math.MaxInt64}
	}
	return period{c.start, c.end}
}

// caused reports whether what began at a moment by the host's clock may be part of the
// call, or a consequence of it.
func (c *call) caused(start int64) bool {
	return c.start <= start && start <= plus(c.end, longAfter)
}
