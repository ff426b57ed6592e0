package calls

import "math"

// Period is a time, in Unix nanoseconds: by the host's clock, where nothing else is said.
// It is also a range of offsets between two clocks. Its end is part of it; nothing is
// possible if that is before its start.
type Period struct{ Start, End int64 }

// always is a period without bounds, never one without moments.
var (
	always = Period{math.MinInt64, math.MaxInt64}
	never  = Period{math.MaxInt64, math.MinInt64}
)

func (p Period) has(at int64) bool { return p.Start <= at && at <= p.End }

func (p Period) and(q Period) Period { return Period{max(p.Start, q.Start), min(p.End, q.End)} }

func (p Period) possible() bool { return p.Start <= p.End }

// Within reports whether all of p is in q.
func (p Period) Within(q Period) bool { return p.and(q) == p }

// nearest returns the moment of the period that is nearest to another.
func (p Period) nearest(at int64) int64 { return max(p.Start, min(at, p.End)) }

func (p Period) middle() int64 { return p.Start + (max(p.End, p.Start)-p.Start)/2 }

// widened returns the period with as much more before and after it.
func (p Period) widened(by int64) Period {
	if p.Start != math.MinInt64 {
		p.Start = plus(p.Start, -by)
	}
	if p.End != math.MaxInt64 {
		p.End = plus(p.End, by)
	}
	return p
}

// offsets returns those that put guest within host.
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

// plus adds without leaving the range.
func plus(a, b int64) int64 {
	switch {
	case b > 0 && a > math.MaxInt64-b:
		return math.MaxInt64
	case b < 0 && a < math.MinInt64-b:
		return math.MinInt64
	}
	return a + b
}
