package calls

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// t0 is when the tests' sandboxes begin, in Unix nanoseconds.
const t0 = int64(1_800_000_000_000_000_000)

// TestClock: for any pairs, an estimate is within its pair's bounds, and there always is one.
func TestClock(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		program := make([]byte, 8*(1+r.IntN(300)))
		for i := range program {
			program[i] = byte(r.Uint32())
		}
		clockTorture(t, program)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestClockOfCalls: what is said of the clock is what was learned last, also when the oldest
// pairs are forgotten.
func TestClockOfCalls(t *testing.T) {
	c := New(Options{})
	if _, _, known := c.Clock(); known {
		t.Error("the clock is known before any span")
	}
	for i := range int64(maxKnots + 3) {
		c.clock.learn(t0+i, Period{1000 + i, 1000 + i})
		if offset, _, known := c.Clock(); !known || offset != time.Duration(1000+i) {
			t.Fatalf("after pair %d: %v, %v", i, offset, known)
		}
	}
	c.clock.learn(t0+1000, Period{1 << 40, 1 << 41})
	if offset, set, _ := c.Clock(); offset < 1<<40 || set == 0 {
		t.Errorf("after the clock was set: %v, set %d times", offset, set)
	}
}

func FuzzClock(f *testing.F) {
	f.Add([]byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, program []byte) { clockTorture(t, program[:min(len(program), 8*1000)]) })
}

func clockTorture(t *testing.T, program []byte) {
	var c clock
	moments := []int64{0, 1, t0, math.MaxInt64}
	for ; len(program) >= 8; program = program[8:] {
		p := program[:8]
		at := t0 + int64(p[1])<<(p[0]%36)
		if p[0] >= 250 {
			at = moments[p[1]%4]
		}
		lo := (int64(p[2]) - 128) << (p[3] % 40)
		b := Period{lo, lo + int64(p[4])<<(p[5]%30)}
		switch {
		case p[6]%16 == 0:
			b.End = math.MaxInt64
		case p[6]%16 == 1:
			b.Start = math.MinInt64
		}
		switch {
		case p[7] < 8:
			c.set(at)
		case p[7] < 200:
			if got := c.learn(at, b); !b.has(got) {
				t.Fatalf("%d is not within %+v", got, b)
			}
			if got := c.at(at); !b.has(got) {
				t.Fatalf("afterwards %d is not within %+v", got, b)
			}
		default:
			guest := Period{at, plus(at, int64(p[2])<<(p[3]%30)-int64(p[6]))}
			host := Period{plus(at, lo), plus(at, lo+int64(p[4])<<(p[5]%36))}
			s := c.fit(guest, fits{host: host, sure: p[7]%2 == 0, start: p[7]%3 == 0, skew: 2 * int64(time.Second)})
			from, to := s.moment(guest.Start), s.moment(guest.End)
			if p[7]%2 == 0 && p[7]%3 != 0 && (from < host.Start || max(from, to) > host.End) {
				t.Fatalf("%+v is made %d to %d, outside of %+v: %+v", guest, from, to, host, s)
			}
		}
		if _, possible, expected := c.near(at); !possible.possible() || !possible.has(expected) {
			t.Fatalf("at %d %d is expected, possible is %+v", at, expected, possible)
		}
		if len(c.knots) > maxKnots {
			t.Fatalf("%d pairs are remembered", len(c.knots))
		}
	}
}
