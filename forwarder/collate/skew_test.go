package collate

import (
	"math"
	"testing"
)

// The guest's clock is off by d ms in these: what it says of a call from 0 to 100.
func skewed(b *bed, d int64) {
	b.Add(span("leaf", 7, 3, 2, d+30, d+40))
	b.Add(of(span("do_create_container", 7, 2, 1, d+20, d+50), "a", ""))
	b.Add(of(span("create_container", 7, 1, 0, d+10, d+90), "a", ""))
	b.Tick()
}

func TestSkewIsCorrected(t *testing.T) {
	for name, tc := range map[string]struct{ off, by int64 }{
		"ahead":              {1000, -990}, // so that it ends with the call
		"behind":             {-1000, 990}, // so that it begins with the call
		"far behind":         {-1_000_000_000_000, 999_999_999_990},
		"small":              {14, 0},
		"within the call":    {8, 0},
		"a little too large": {16, -6},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			b.called("Create", "a", "", 0xC1, 0, 100)
			skewed(b, tc.off)
			for id, at := range map[uint64]int64{1: 10, 2: 20, 3: 30} {
				s := b.get(id)
				was := t0 + (at+tc.off)*ms
				if got := int64(s.StartTimeUnixNano) - was; got != tc.by*ms {
					t.Errorf("span %d was moved by %d ms, want %d", id, got/ms, tc.by)
				}
				start, end := attribute(s, OriginalStartKey), attribute(s, OriginalEndKey)
				if (start != nil) != (tc.by != 0) || (end != nil) != (tc.by != 0) {
					t.Errorf("span %d has the original times %v, %v", id, start, end)
				}
				if start != nil && start.GetIntValue() != was {
					t.Errorf("span %d has the original time %d, want %d", id, start.GetIntValue(), was)
				}
			}
			// One offset for all of the sandbox.
			b.called("Kill", "a", "", 0xC2, 10_000, 10_100)
			b.Add(of(span("signal_process", 8, 9, 0, tc.off+10_050, tc.off+10_060), "a", ""))
			b.Tick()
			b.want(9, ourTrace, 0xC2)
			if got := int64(b.get(9).StartTimeUnixNano) - (t0 + (10_050+tc.off)*ms); got != tc.by*ms {
				t.Errorf("the next RPC was moved by %d ms, want %d", got/ms, tc.by)
			}
		})
	}
}

// Which of several calls an RPC is of may be wrong, and then the clocks are not.
func TestSkewIsOnlyBelievedWhenSure(t *testing.T) {
	for name, tell := range map[string]func(b *bed){
		"another call could be meant": func(b *bed) {
			b.called("Create", "a", "", 0xC1, 0, 100)
			b.called("Create", "b", "", 0xC2, 5000, 5100)
			b.Add(span("create_sandbox", 7, 1, 0, 300, 350))
		},
		"an RPC that is made often": func(b *bed) {
			b.called("Kill", "a", "", 0xC1, 0, 100)
			b.Add(of(span("signal_process", 7, 1, 0, 300, 350), "a", ""))
		},
		"an exec by another name": func(b *bed) {
			b.called("Start", "a", "x", 0xC1, 0, 100)
			b.Add(of(span("exec_process", 7, 1, 0, 300, 350), "a", "uuid"))
		},
		"longer than the call": func(b *bed) {
			b.called("Create", "a", "", 0xC1, 0, 100)
			b.Add(of(span("create_container", 7, 1, 0, 300, 500), "a", ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			tell(b)
			b.Tick()
			if s := b.get(1); s.StartTimeUnixNano != uint64(t0+300*ms) || b.Stats().Corrected != 0 {
				t.Errorf("the span was moved by %d ms", (int64(s.StartTimeUnixNano)-t0)/ms-300)
			}
		})
	}
}

func TestSkewEstimate(t *testing.T) {
	type bounds struct{ lo, hi int64 }
	for name, tc := range map[string]struct {
		seen []bounds
		want int64
	}{
		"nothing needed":             {[]bounds{{-10, 10}, {-100, 3}}, 0},
		"the nearest that obeys all": {[]bounds{{100, 900}, {50, 300}, {200, 400}}, 200},
		"it stays where it may":      {[]bounds{{-900, -100}, {-500, -50}}, -100},
		"within tolerance":           {[]bounds{{5, 900}}, 0},
		"a clock that was set":       {[]bounds{{100, 200}, {1000, 1100}}, 1000},
		"and set back":               {[]bounds{{100, 200}, {1000, 1100}, {-10, 10}}, 10},
		"impossible":                 {[]bounds{{100, 50}}, 0},
		"open call":                  {[]bounds{{100, math.MaxInt64}}, 100},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSkew(5)
			for _, b := range tc.seen {
				s.observe(b.lo, b.hi)
			}
			if s.offset != tc.want {
				t.Errorf("the offset is %d, want %d", s.offset, tc.want)
			}
		})
	}
}

func TestShifted(t *testing.T) {
	for _, tc := range []struct {
		at     uint64
		offset int64
		want   uint64
	}{
		{100, 5, 105}, {100, -5, 95}, {100, -500, 0}, {math.MaxInt64 - 1, 5, math.MaxInt64},
		{math.MaxUint64, -1, math.MaxInt64 - 1}, {0, math.MinInt64 + 1, 0}, {math.MaxInt64, math.MinInt64 + 1, 0},
	} {
		if got := shifted(tc.at, tc.offset); got != tc.want {
			t.Errorf("%d shifted by %d is %d, want %d", tc.at, tc.offset, got, tc.want)
		}
	}
}

func TestEndBeforeStart(t *testing.T) {
	b := newBed(t, nil)
	b.Add(span("wait_process", 7, 1, 0, 50, 10))
	b.Tick()
	s := b.get(1)
	if s.StartTimeUnixNano != s.EndTimeUnixNano || attribute(s, OriginalEndKey).GetIntValue() != t0+10*ms {
		t.Errorf("sent as %v", s)
	}
}
