package collate

import "math"

// skew estimates what must be added to the guest's clock to make it the host's.
//
// An agent's RPC is served while the call that caused it waits, so each pair that
// is certainly one bounds the offset from both sides. The estimate is the one
// nearest to the last that obeys all bounds: no correction where none is needed,
// never more than is proven. A clock that is set or drifts makes bounds
// contradict each other; then only the newest hold.
type skew struct {
	tolerance int64
	lo, hi    int64
	offset    int64
}

func newSkew(tolerance int64) skew {
	return skew{tolerance: tolerance, lo: math.MinInt64, hi: math.MaxInt64}
}

// observe takes in the bounds of one pair. Bounds that exclude each other are of
// no use: the RPC took longer than the call.
func (s *skew) observe(lo, hi int64) {
	if lo > hi {
		return
	}
	if lo > s.hi || hi < s.lo {
		s.lo, s.hi = lo, hi
	} else {
		s.lo, s.hi = max(s.lo, lo), min(s.hi, hi)
	}
	if s.offset < s.lo && s.lo-s.offset > s.tolerance {
		s.offset = s.lo
	}
	if s.offset > s.hi && s.offset-s.hi > s.tolerance {
		s.offset = s.hi
	}
}

// shifted returns t by another clock, in the range of what OTLP's times can be.
func shifted(t uint64, offset int64) uint64 {
	at := int64(min(t, math.MaxInt64))
	switch {
	case offset > 0 && at > math.MaxInt64-offset:
		return math.MaxInt64
	case at+offset < 0:
		return 0
	}
	return uint64(at + offset)
}
