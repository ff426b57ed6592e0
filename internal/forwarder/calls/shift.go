package calls

import "math"

// Shift turns the guest's times into the host's, for what the guest did for one request or on
// its own. As a rule it is one offset for all of it, so that its spans keep their relation.
type Shift struct {
	offset int64
	// two: the clock was set meanwhile, or the span is long. Then offset applies at
	// guest.Start, end applies at guest.End, and host is the whole period.
	two         bool
	end         int64
	guest, host Period
}

// moment returns a time of the guest by the host's clock. A nil shift changes nothing.
func (s *Shift) moment(guest int64) int64 {
	if s == nil {
		return guest
	}
	if !s.two {
		return plus(guest, s.offset)
	}
	early, late := plus(guest, s.offset), plus(guest, s.end)
	switch {
	case s.gradual() && s.guest.has(guest):
		part := float64(guest-s.guest.Start) / float64(max(1, s.guest.End-s.guest.Start))
		return s.host.nearest(plus(early, int64(part*float64(s.end-s.offset))))
	case s.host.has(early) || !s.host.has(late) && guest <= s.guest.Start:
		return s.host.nearest(early)
	}
	return s.host.nearest(late)
}

// gradual reports whether the offset changed too little to tell when it did: times between the
// ends are then moved in proportion.
func (s *Shift) gradual() bool {
	return distance(s.offset, s.end) <= uint64(max(0, s.host.End-s.host.Start))
}

// fits bounds a span's times by what the host knows.
type fits struct {
	// host is the earliest and the latest that it can have been.
	host Period
	// sure: it was certainly within host, so that the clock learns from it.
	sure bool
	// start: only its beginning was within host.
	start bool
	// skew is how far it may be moved to lie within host if it is not sure.
	skew int64
}

// fit returns the shift of a span.
func (c *clock) fit(guest Period, in fits) *Shift {
	end := guest.End
	if in.start {
		end = guest.Start
	}
	within := offsets(Period{guest.Start, end}, in.host)
	switch {
	case guest.End < guest.Start,
		// It seems longer than what encloses it.
		!within.possible() && (in.sure || within.Start-in.skew > within.End),
		!in.sure && c.epochAt(guest.Start) != c.epochAt(guest.End):
		return c.fitEnds(guest, in)
	case !within.possible():
	case in.sure:
		return &Shift{offset: c.learn(guest.middle(), within)}
	default:
		_, possible, expected := c.near(guest.middle())
		near := Period{plus(expected, -in.skew), plus(expected, in.skew)}
		if both := possible.and(near).and(within); both.possible() {
			return &Shift{offset: both.nearest(expected)}
		}
	}
	return &Shift{offset: c.at(guest.middle())}
}

// fitEnds returns the shift of a span during which the guest's clock was set, each end by
// itself. An end that the clock puts outside in.host moves to its bound.
func (c *clock) fitEnds(guest Period, in fits) *Shift {
	start, end := plus(guest.Start, c.at(guest.Start)), plus(guest.End, c.at(guest.End))
	if !in.host.has(start) && in.host.Start != math.MinInt64 {
		start = in.host.Start
	}
	if in.host.End != math.MaxInt64 && (end > in.host.End || in.sure && end < max(start, in.host.Start)) {
		end = in.host.End
	}
	end = max(start, end)
	if in.sure {
		for _, at := range []int64{guest.Start, guest.End} {
			if b := offsets(Period{at, at}, in.host); b.possible() {
				c.learn(at, b)
			}
		}
	}
	return &Shift{two: true, offset: plus(start, -guest.Start), end: plus(end, -guest.End), guest: guest, host: Period{start, end}}
}

// shift returns the shift of an agent's span and learns from it: a span ended before it arrived
// and began after the sandbox did.
func (c *Calls) shift(s *Span, in fits) *Shift {
	guest, possible := s.at, Period{c.began, s.Came}
	if s.IsLifeLong() {
		return c.clock.fitEnds(guest, fits{host: possible}) // each end by what is known of its time
	}
	if b := offsets(guest, possible); guest.Start <= guest.End && b.possible() && !b.has(c.clock.at(guest.middle())) {
		c.clock.learn(guest.middle(), b)
	}
	in.host, in.skew = in.host.and(possible), skew
	if s.request != nil && s.request.SetsClock {
		c.clock.set(guest.End)
		return c.clock.fitEnds(guest, in)
	}
	return c.clock.fit(guest, in)
}

// shiftBelow returns the shift of an agent's span from the parent that it names.
func (c *Calls) shiftBelow(s *Span) *Shift {
	in := fits{host: always}
	if asked, _ := c.runtime.Get(s.ParentID); asked.request != "" && (s.request == nil || s.request.Name == asked.request) {
		in = fits{host: asked.Period, sure: s.request != nil} // an unknown span may be a later Kata's
	} else if ours, ok := c.of(s.ParentID); ok && ours.Method != "" {
		in = fits{host: ours.serving(), sure: s.request != nil && (s.request.Once || s.request.Name == ours.Method)}
	} else if m := c.caller(s); m.call != nil {
		in = fits{host: m.serving(), sure: m.sure}
	}
	return c.shift(s, in)
}

// period returns a period of the guest on the host's clock.
func (s *Shift) period(guest Period) Period {
	start := s.moment(guest.Start)
	return Period{start, max(start, s.moment(guest.End))}
}

// by returns a period of the guest on the host's clock when only its own times are known.
func (c *clock) by(guest Period) Period {
	return Period{plus(guest.Start, c.at(guest.Start)), plus(guest.End, c.at(guest.End))}
}

// Event returns the host's time of an event in a span that is drawn at a time.
func (s *Shift) Event(at uint64, drawn Period) uint64 {
	return uint64(drawn.nearest(s.moment(clamped(at))))
}
