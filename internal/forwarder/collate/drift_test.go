package collate

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// guestClock is a guest's, as it goes.
type guestClock struct {
	offset int64   // what must be added to it, in ns
	drift  float64 // how much that grows, per ns
	steps  []setting
}

// setting is a moment by the host's clock from which on the offset is another.
type setting struct{ at, by int64 }

// of returns a time of the host's by the guest's clock.
func (g *guestClock) of(host int64) uint64 {
	offset := g.offset + int64(g.drift*float64(host-t0))
	for _, s := range g.steps {
		if host >= s.at {
			offset = s.by + int64(g.drift*float64(host-t0))
		}
	}
	return uint64(host - offset)
}

// ways are those in which it is known within what a request was served.
var ways = map[string]func(b *bed, s *span.Span, id uint64, host period){
	"by the shim's call": func(b *bed, s *span.Span, id uint64, host period) {
		b.Call(Call{Method: "Create", ContainerID: s.ContainerID, SpanContext: context(ourTrace, 0xC000+id), Start: time.Unix(0, host.start), End: time.Unix(0, host.end)})
	},
	"by the relayed request": func(b *bed, s *span.Span, id uint64, host period) {
		sc := context(ourTrace, 0xC000+id)
		b.Request(Call{Method: "CreateContainer", ContainerID: s.ContainerID, SpanContext: sc, Start: time.Unix(0, host.start), End: time.Unix(0, host.end)}, trace.SpanContext{})
		s.TraceID, s.ParentID = sc.TraceID(), sc.SpanID()
	},
	"by the runtime's span": func(b *bed, s *span.Span, id uint64, host period) {
		r := ofRuntime("ttrpc.CreateContainer", 7, 0xC000+id, 0, 0, 0)
		r.Start, r.End = uint64(host.start), uint64(host.end)
		b.AddRuntime(r)
		s.TraceID, s.ParentID = r.TraceID, r.SpanID
	},
	"by the runtime's span that comes later": func(b *bed, s *span.Span, id uint64, host period) {
		b.AddRuntime(ofRuntime("createAssets", 7, 0x1C000+id, 0, 0, 0))
		r := ofRuntime("ttrpc.CreateContainer", 7, 0xC000+id, 0, 0, 0)
		r.Start, r.End = uint64(host.start), uint64(host.end)
		s.TraceID, s.ParentID = r.TraceID, r.SpanID
		b.later = append(b.later, func() { b.AddRuntime(r) })
	},
}

// TestGuestsClock: whatever the guest's clock does, each request is drawn within what
// caused it, what is below it with it, and all of it nearly when it was.
func TestGuestsClock(t *testing.T) {
	for name, tc := range map[string]struct {
		clock guestClock
		most  time.Duration // the largest error
	}{
		"right":                      {guestClock{}, 0},
		"behind":                     {guestClock{offset: 385 * ms}, 15 * time.Millisecond},
		"ahead":                      {guestClock{offset: -147 * ms}, 15 * time.Millisecond},
		"drifts":                     {guestClock{offset: 100 * ms, drift: 0.022}, 40 * time.Millisecond},
		"drifts back":                {guestClock{offset: 100 * ms, drift: -0.022}, 40 * time.Millisecond},
		"an hour behind, then set":   {guestClock{offset: 3600 * s1, steps: []setting{{t0 + 20*s1 + 7*ms, 0}}}, 15 * time.Millisecond},
		"an hour ahead, then set":    {guestClock{offset: -3600 * s1, steps: []setting{{t0 + 20*s1 + 7*ms, 0}}}, 15 * time.Millisecond},
		"set wrong":                  {guestClock{steps: []setting{{t0 + 20*s1 + 7*ms, 7200 * s1}}}, 15 * time.Millisecond},
		"set while a request lasts":  {guestClock{offset: 3600 * s1, steps: []setting{{t0 + 20*s1 + 50*ms, 0}}}, 50 * time.Millisecond},
		"set back while one lasts":   {guestClock{offset: -3600 * s1, steps: []setting{{t0 + 20*s1 + 50*ms, 0}}}, 50 * time.Millisecond},
		"forward and back":           {guestClock{steps: []setting{{t0 + 10*s1 + 50*ms, -5000 * s1}, {t0 + 30*s1 + 50*ms, 0}}}, 50 * time.Millisecond},
		"a little, and back":         {guestClock{steps: []setting{{t0 + 10*s1 + 7*ms, 400 * ms}, {t0 + 30*s1 + 7*ms, 0}}}, 15 * time.Millisecond},
		"from 1970 to now":           {guestClock{offset: t0 - 5*s1, steps: []setting{{t0 + 10*s1 + 7*ms, 0}}}, 15 * time.Millisecond},
		"behind, and set by as much": {guestClock{offset: 385 * ms, steps: []setting{{t0 + 20*s1 + 7*ms, 0}}}, 15 * time.Millisecond},
	} {
		for way, tell := range ways {
			t.Run(name+"/"+way, func(t *testing.T) {
				r := rand.New(rand.NewPCG(1, 2))
				b := newBed(t, func(o *Options) { o.Began = time.Unix(0, t0) })
				type truth struct{ span, leaf, host period }
				truths := make(map[uint64]truth)
				for id := uint64(1); id < 40; id++ {
					at := t0 + int64(id)*s1
					var w truth
					w.span = period{at + int64(r.IntN(10))*ms, at + (90+int64(r.IntN(10)))*ms}
					w.leaf = period{w.span.start + 10*ms, w.span.end - 40*ms}
					w.host = period{w.span.start - (1+int64(r.IntN(10)))*ms, w.span.end + (1+int64(r.IntN(10)))*ms}
					truths[id] = w
					s := of(spanOf("create_container", 1000+id, id, 0, 0, 0), "c"+string(rune('0'+id)), "")
					s.Start, s.End = tc.clock.of(w.span.start), tc.clock.of(w.span.end)
					tell(b, s, id, w.host)
					leaf := spanOf("leaf", 1000+id, 0x100+id, id, 0, 0)
					leaf.Start, leaf.End = tc.clock.of(w.leaf.start), tc.clock.of(w.leaf.end)
					b.now = max(b.now, w.host.end+100*ms)
					b.Collator.Add(leaf)
					b.Collator.Add(s)
					for _, f := range b.later {
						f()
					}
					b.later = nil
					b.Tick()
				}
				b.Ended()
				for id, w := range truths {
					at, leaf := drawnAt(b.get(id)), drawnAt(b.get(0x100+id))
					if at.and(w.host) != at || leaf.and(at) != leaf {
						t.Errorf("request %d is drawn %v to %v after its cause began and before it ended, its child %v to %v after its own", id,
							time.Duration(at.start-w.host.start), time.Duration(w.host.end-at.end), time.Duration(leaf.start-at.start), time.Duration(at.end-leaf.end))
					}
					for _, off := range []int64{at.start - w.span.start, at.end - w.span.end, leaf.start - w.leaf.start, leaf.end - w.leaf.end} {
						if most := int64(tc.most); off > most || off < -most {
							t.Errorf("request %d is drawn %v wrong: %v to %v, its child %v to %v", id, time.Duration(off),
								time.Duration(at.start-w.span.start), time.Duration(at.end-w.span.end), time.Duration(leaf.start-w.leaf.start), time.Duration(leaf.end-w.leaf.end))
						}
					}
					if _, moved := b.original(id); moved != (uint64(at.start) != tc.clock.of(w.span.start) || uint64(at.end) != tc.clock.of(w.span.end)) {
						t.Errorf("request %d was moved: %v", id, moved)
					}
				}
				if tc.most == 0 && b.Stats().Corrected != 0 {
					t.Errorf("%d spans were moved", b.Stats().Corrected)
				}
			})
		}
	}
}

// TestSetGuestDateTime: where the runtime sets the guest's clock, the old offset is
// forgotten at once, and neither that request nor one beside it is hours long, though
// nothing but the shim's calls is known.
func TestSetGuestDateTime(t *testing.T) {
	const hour = 3_600_000 // in ms
	b := newBed(t, func(o *Options) { o.Began = time.Unix(0, t0) })
	b.called("Create", "a", "", 0xC1, 0, 1000)
	b.Add(of(spanOf("create_container", 7, 1, 0, 10-hour, 900-hour), "a", "")) // an hour behind
	b.called("Create", "b", "", 0xC2, 2000, 3000)
	b.Add(spanOf("leaf", 8, 3, 2, 2490-hour, 2501))
	b.Add(spanOf("set_guest_date_time", 8, 2, 0, 2480-hour, 2505))
	b.Add(of(spanOf("copy_file", 9, 4, 0, 2400-hour, 2600), "b", ""))
	b.Add(spanOf("check", 10, 5, 0, 4000, 4010))
	b.called("Kill", "a", "", 0xC3, 5000, 5100)
	b.Add(of(spanOf("signal_process", 11, 6, 0, 5010, 5090), "a", ""))
	b.Ended()
	first := attribute(b.get(1), OriginalStartKey)
	if first == nil {
		t.Fatal("the clock is taken to be right before it was set")
	}
	offset := (int64(b.get(1).StartTimeUnixNano) - first.GetIntValue()) / ms
	b.drawn(2, 2480-hour+offset, 2505)
	b.drawn(3, 2490-hour+offset, 2501)
	b.drawn(4, 2400-hour+offset, 2600)
	b.drawn(5, 4000, 4010)
	b.drawn(6, 5010, 5090)
	b.want(4, ourTrace, 0xC2)
}

// original returns the time at which a span began by the guest's clock, if it is another
// than that at which it is drawn.
func (b *bed) original(id uint64) (int64, bool) {
	v := attribute(b.get(id), OriginalStartKey)
	return v.GetIntValue(), v != nil
}

// TestClock: whatever the pairs are, an estimate is within the bounds of the pair that it
// was made of, and there always is one.
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
		b := bounds{lo, lo + int64(p[4])<<(p[5]%30)}
		switch {
		case p[6]%16 == 0:
			b.hi = math.MaxInt64
		case p[6]%16 == 1:
			b.lo = math.MinInt64
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
			guest := period{at, plus(at, int64(p[2])<<(p[3]%30)-int64(p[6]))}
			host := period{plus(at, lo), plus(at, lo+int64(p[4])<<(p[5]%36))}
			s := c.fit(guest, fits{host: host, sure: p[7]%2 == 0, start: p[7]%3 == 0, skew: 2 * s1})
			from, to := s.of(guest.start), s.of(guest.end)
			if p[7]%2 == 0 && p[7]%3 != 0 && (from < host.start || max(from, to) > host.end) {
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
