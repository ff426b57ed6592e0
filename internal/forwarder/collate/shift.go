package collate

import "math"

// period is a time, in Unix nanoseconds: by the host's clock, where nothing else is said.
type period struct{ start, end int64 }

// always is a period without bounds.
var always = period{math.MinInt64, math.MaxInt64}

// never is a period without moments.
var never = period{math.MaxInt64, math.MinInt64}

func (p period) has(at int64) bool { return p.start <= at && at <= p.end }

func (p period) and(q period) period { return period{max(p.start, q.start), min(p.end, q.end)} }

// nearest returns the moment of the period that is nearest to another.
func (p period) nearest(at int64) int64 { return max(p.start, min(at, p.end)) }

// shift makes the host's time of the guest's, for what the guest did at one request or
// on its own. As a rule it is one offset for all of it, so that its spans keep their
// relation.
type shift struct {
	offset int64
	// two: the clock was set meanwhile, or it is of a time that is long for a clock. Then
	// offset is right at guest.start, and end at guest.end, and host is when all of it was.
	two         bool
	end         int64
	guest, host period
}

// of returns a time of the guest's by the host's clock.
func (s *shift) of(guest int64) int64 {
	if s == nil {
		return guest
	}
	if !s.two {
		return plus(guest, s.offset)
	}
	early, late := plus(guest, s.offset), plus(guest, s.end)
	switch {
	case s.gradual() && s.guest.has(guest):
		part := float64(guest-s.guest.start) / float64(max(1, s.guest.end-s.guest.start))
		return s.host.nearest(plus(early, int64(part*float64(s.end-s.offset))))
	case s.host.has(early) || !s.host.has(late) && guest <= s.guest.start:
		return s.host.nearest(early)
	}
	return s.host.nearest(late)
}

// gradual reports whether the offset changed by so little that nothing says when: times
// between the ends are then moved in proportion.
func (s *shift) gradual() bool {
	return distance(s.offset, s.end) <= uint64(max(0, s.host.end-s.host.start))
}

// fits is how what the guest says of a span is made to lie within what the host knows.
type fits struct {
	// host is when it was at the earliest and the latest.
	host period
	// sure: it was within host for certain, so that the clock can be learned from it.
	sure bool
	// start: only its beginning was within host.
	start bool
	// skew is how far it may be moved for host if it is not sure.
	skew int64
}

// fit returns the shift of a span.
func (c *clock) fit(guest period, in fits) *shift {
	end := guest.end
	if in.start {
		end = guest.start
	}
	within := boundsOf(period{guest.start, end}, in.host)
	switch {
	case guest.end < guest.start,
		// It seems to have lasted longer than what it is within.
		!within.possible() && (in.sure || within.lo-in.skew > within.hi),
		!in.sure && c.epochAt(guest.start) != c.epochAt(guest.end):
		return c.fitEnds(guest, in)
	case !within.possible():
	case in.sure:
		return &shift{offset: c.learn(middle(guest), within)}
	default:
		_, possible, expected := c.near(middle(guest))
		near := bounds{plus(expected, -in.skew), plus(expected, in.skew)}
		if both := possible.and(near).and(within); both.possible() {
			return &shift{offset: both.nearest(expected)}
		}
	}
	return &shift{offset: c.at(middle(guest))}
}

// fitEnds returns the shift of a span in which the guest's clock was set: of both ends
// by themselves. What is not within in by what is known of the clock may have been at
// any time of it.
func (c *clock) fitEnds(guest period, in fits) *shift {
	start, end := plus(guest.start, c.at(guest.start)), plus(guest.end, c.at(guest.end))
	if !in.host.has(start) && in.host.start != math.MinInt64 {
		start = in.host.start
	}
	if in.host.end != math.MaxInt64 && (end > in.host.end || in.sure && end < max(start, in.host.start)) {
		end = in.host.end
	}
	end = max(start, end)
	if in.sure {
		for _, at := range []int64{guest.start, guest.end} {
			if b := boundsOf(period{at, at}, in.host); b.possible() {
				c.learn(at, b)
			}
		}
	}
	return &shift{two: true, offset: plus(start, -guest.start), end: plus(end, -guest.end), guest: guest, host: period{start, end}}
}

// life returns the shift of a span that is as long as a sandbox lives: of both ends by
// what is known of their times.
func (c *clock) life(guest, in period) *shift {
	return c.fitEnds(guest, fits{host: in})
}

func middle(p period) int64 { return p.start + (max(p.end, p.start)-p.start)/2 }
