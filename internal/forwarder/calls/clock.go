package calls

import "math"

// clock estimates, over time, the offset that turns the guest's clock into the host's.
//
// It learns from pairs: a period on the guest's clock that lies within one on the host's,
// because the agent serves a request while somebody waits. Each pair bounds the offset at its
// moment. Clocks drift by no more than maxDrift, so the pair bounds the offset at other moments
// too, the less the farther they are. The estimate is the offset within all bounds that is
// nearest to its neighbours' estimates: no correction where none is needed, never more than is
// proven.
//
// A pair that contradicts the others means that the guest's clock was set. It begins a new
// epoch, which uses no pair from before. A moment belongs to the epoch of the nearest pair by
// the guest's clock.
type clock struct {
	knots  []knot // a ring, in the order of learning
	oldest int
	epoch  int // the latest
}

// knot is what was known of the offset at one moment.
type knot struct {
	at     int64 // by the guest's clock
	Period       // of offsets, by this pair and those before it
	offset int64 // the estimate
	epoch  int
}

const (
	// maxKnots bounds the remembered pairs: a minute of a pod that is polled each second.
	maxKnots = 64
	// maxDrift bounds how much faster or slower the guest's clock runs: by 1/maxDrift, 5 %.
	// Under emulation 2 % were measured.
	maxDrift = 20
)

// learn takes a pair, whose bounds must be possible, and returns the offset at its moment.
func (c *clock) learn(at int64, b Period) int64 {
	epoch, known, offset := c.near(at)
	if all := b.and(known); all.possible() {
		b, offset = all, all.nearest(offset)
	} else if last, expected := c.bounds(c.epoch, at); epoch != c.epoch && b.and(last).possible() {
		epoch, b = c.epoch, b.and(last)
		offset = b.nearest(expected)
	} else {
		c.epoch++
		epoch, offset = c.epoch, b.nearest(0)
	}
	c.put(knot{at: at, Period: b, offset: offset, epoch: epoch})
	return offset
}

// set records that the guest's clock was set to the host's at a moment on the new clock.
func (c *clock) set(at int64) {
	c.epoch++
	c.put(knot{at: at, Period: always, epoch: c.epoch})
}

func (c *clock) put(k knot) {
	if len(c.knots) < maxKnots {
		c.knots = append(c.knots, k)
		return
	}
	c.knots[c.oldest] = k
	c.oldest = (c.oldest + 1) % maxKnots
}

// latest returns what was learned last, nil if nothing was.
func (c *clock) latest() *knot {
	if len(c.knots) == 0 {
		return nil
	}
	return &c.knots[(c.oldest+len(c.knots)-1)%len(c.knots)]
}

// at returns the offset at a moment on the guest's clock.
func (c *clock) at(guest int64) int64 {
	_, _, offset := c.near(guest)
	return offset
}

// epochAt returns the epoch of a moment on the guest's clock.
func (c *clock) epochAt(guest int64) (epoch int) {
	best := uint64(math.MaxUint64)
	for i := range c.knots {
		k := &c.knots[i]
		if d := distance(k.at, guest); d < best || d == best && k.epoch > epoch {
			best, epoch = d, k.epoch
		}
	}
	return epoch
}

// near returns the epoch of a moment, and the possible and the expected offsets then.
func (c *clock) near(at int64) (epoch int, possible Period, expected int64) {
	epoch = c.epochAt(at)
	possible, expected = c.bounds(epoch, at)
	return epoch, possible, expected
}

// bounds returns the possible and the expected offsets at a moment of an epoch.
func (c *clock) bounds(epoch int, at int64) (possible Period, expected int64) {
	possible = always
	var before, after *knot // the nearest pairs
	for i := range c.knots {
		k := &c.knots[i]
		if k.epoch != epoch {
			continue
		}
		then := k.Period
		if d := int64(min(distance(k.at, at), math.MaxInt64)); d > 0 {
			then = then.widened(d/maxDrift + 1)
		}
		possible = possible.and(then)
		if k.at <= at && (before == nil || k.at >= before.at) {
			before = k
		}
		if k.at >= at && (after == nil || k.at < after.at) {
			after = k
		}
	}
	switch {
	case before == nil && after == nil:
	case before == nil:
		expected = after.offset
	case after == nil || after.at == before.at:
		expected = before.offset
	default:
		part := float64(distance(before.at, at)) / float64(distance(before.at, after.at))
		expected = before.offset + int64(part*float64(after.offset-before.offset))
	}
	return possible, possible.nearest(expected)
}

// Period is a time in Unix nanoseconds, on the host's clock unless stated otherwise. It is also
// a range of offsets between two clocks. Both ends are included; a period that ends before its
// start is impossible.
type Period struct{ Start, End int64 }

// always is the period without bounds, never the empty one.
var (
	always = Period{math.MinInt64, math.MaxInt64}
	never  = Period{math.MaxInt64, math.MinInt64}
)

func (p Period) has(at int64) bool { return p.Start <= at && at <= p.End }

func (p Period) and(q Period) Period { return Period{max(p.Start, q.Start), min(p.End, q.End)} }

func (p Period) possible() bool { return p.Start <= p.End }

// Within reports whether all of p is in q.
func (p Period) Within(q Period) bool { return p.and(q) == p }

// nearest returns the moment in the period that is nearest to at.
func (p Period) nearest(at int64) int64 { return max(p.Start, min(at, p.End)) }

func (p Period) middle() int64 { return p.Start + (max(p.End, p.Start)-p.Start)/2 }

// widened returns the period extended on both sides.
func (p Period) widened(by int64) Period {
	if p.Start != math.MinInt64 {
		p.Start = plus(p.Start, -by)
	}
	if p.End != math.MaxInt64 {
		p.End = plus(p.End, by)
	}
	return p
}

// offsets returns the offsets that put guest within host.
func offsets(guest, host Period) Period {
	p := always
	if host.Start != math.MinInt64 {
		p.Start = plus(host.Start, -guest.Start)
	}
	if host.End != math.MaxInt64 {
		p.End = plus(host.End, -guest.End)
	}
	return p
}

func distance(a, b int64) uint64 {
	if a > b {
		a, b = b, a
	}
	return uint64(b) - uint64(a)
}

// plus adds, and saturates.
func plus(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}
