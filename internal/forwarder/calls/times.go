package calls

// shift returns the shift of a span of the agent's, and learns from it: what happened
// ended before it arrived, and began after the sandbox did.
func (c *Calls) shift(s *Span, in fits) *Shift {
	guest, possible := s.at, Period{c.began, s.Came}
	if s.IsLifeLong() {
		return c.clock.fitEnds(guest, fits{host: possible}) // of both ends by what is known of their times
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

// shiftBelow returns the shift of a span of the agent's by what it names as its parent.
func (c *Calls) shiftBelow(s *Span) *Shift {
	in := fits{host: always}
	if a, ok := c.runtime.asked.Get(s.ParentID); ok && (s.request == nil || s.request.Name == a.request) {
		in = fits{host: a.Period, sure: s.request != nil} // or of a later Kata
	} else if ours, ok := c.of(s.ParentID); ok && ours.Method != "" {
		in = fits{host: ours.serving(), sure: s.request != nil && (s.request.Once || s.request.Name == ours.Method)}
	} else if m := c.caller(s); m.call != nil {
		in = fits{host: m.serving(), sure: m.sure}
	}
	return c.shift(s, in)
}

// of returns when something of the guest's was by the host's clock.
func (s *Shift) of(guest Period) Period {
	start := s.Of(guest.Start)
	return Period{start, max(start, s.Of(guest.End))}
}

// by returns when something of the guest's was by the host's clock, of which only its own
// times are known.
func (c *clock) by(guest Period) Period {
	return Period{plus(guest.Start, c.at(guest.Start)), plus(guest.End, c.at(guest.End))}
}

// Event returns when something happened within a span that is drawn at a time.
func (s *Shift) Event(at uint64, drawn Period) uint64 {
	return uint64(drawn.nearest(s.Of(clamped(at))))
}
