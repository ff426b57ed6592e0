package collate

import (
	"math/rand/v2"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// guestClock is a guest's clock that drifts and is set.
type guestClock struct {
	offset int64   // to be added to it, in ns
	drift  float64 // growth of offset, per ns
	steps  []setting
}

// setting is a moment on the host's clock from which another offset applies.
type setting struct{ at, by int64 }

// of converts a time of the host to the guest's clock.
func (g *guestClock) of(host int64) uint64 {
	offset := g.offset + int64(g.drift*float64(host-t0))
	for _, s := range g.steps {
		if host >= s.at {
			offset = s.by + int64(g.drift*float64(host-t0))
		}
	}
	return uint64(host - offset)
}

// ways are the kinds of bounds that are known for a request.
var ways = map[string]func(b *bed, s *span.Span, id uint64, host calls.Period){
	"by the shim's call": func(b *bed, s *span.Span, id uint64, host calls.Period) {
		b.Call(calls.Call{Method: "Create", ContainerID: s.ContainerID, SpanContext: context(ourTrace, 0xC000+id), Start: time.Unix(0, host.Start), End: time.Unix(0, host.End)})
	},
	"by the relayed request": func(b *bed, s *span.Span, id uint64, host calls.Period) {
		sc := context(ourTrace, 0xC000+id)
		b.Request(calls.Call{Method: "CreateContainer", ContainerID: s.ContainerID, SpanContext: sc, Start: time.Unix(0, host.Start), End: time.Unix(0, host.End)}, trace.SpanContext{})
		s.TraceID, s.ParentID = sc.TraceID(), sc.SpanID()
	},
	"by the runtime's span": func(b *bed, s *span.Span, id uint64, host calls.Period) {
		r := ofRuntime("ttrpc.CreateContainer", 7, 0xC000+id, 0, 0, 0)
		r.Start, r.End = uint64(host.Start), uint64(host.End)
		b.AddRuntime(r)
		s.TraceID, s.ParentID = r.TraceID, r.SpanID
	},
	"by the runtime's span that comes later": func(b *bed, s *span.Span, id uint64, host calls.Period) {
		b.AddRuntime(ofRuntime("createAssets", 7, 0x1C000+id, 0, 0, 0))
		r := ofRuntime("ttrpc.CreateContainer", 7, 0xC000+id, 0, 0, 0)
		r.Start, r.End = uint64(host.Start), uint64(host.End)
		s.TraceID, s.ParentID = r.TraceID, r.SpanID
		b.later = append(b.later, func() { b.AddRuntime(r) })
	},
}

// TestGuestsClock: whatever the guest's clock does, each request is drawn within its cause, its
// children with it, and all close to their true times.
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
				type truth struct{ span, leaf, host calls.Period }
				truths := make(map[uint64]truth)
				for id := uint64(1); id < 40; id++ {
					at := t0 + int64(id)*s1
					var w truth
					w.span = calls.Period{Start: at + int64(r.IntN(10))*ms, End: at + (90+int64(r.IntN(10)))*ms}
					w.leaf = calls.Period{Start: w.span.Start + 10*ms, End: w.span.End - 40*ms}
					w.host = calls.Period{Start: w.span.Start - (1+int64(r.IntN(10)))*ms, End: w.span.End + (1+int64(r.IntN(10)))*ms}
					truths[id] = w
					s := of(spanOf("create_container", 1000+id, id, 0, 0, 0), "c"+string(rune('0'+id)), "")
					s.Start, s.End = tc.clock.of(w.span.Start), tc.clock.of(w.span.End)
					tell(b, s, id, w.host)
					leaf := spanOf("leaf", 1000+id, 0x100+id, id, 0, 0)
					leaf.Start, leaf.End = tc.clock.of(w.leaf.Start), tc.clock.of(w.leaf.End)
					b.now = max(b.now, w.host.End+100*ms)
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
					if !at.Within(w.host) || !leaf.Within(at) {
						t.Errorf("request %d is drawn %v to %v after its cause began and before it ended, its child %v to %v after its own", id,
							time.Duration(at.Start-w.host.Start), time.Duration(w.host.End-at.End), time.Duration(leaf.Start-at.Start), time.Duration(at.End-leaf.End))
					}
					for _, off := range []int64{at.Start - w.span.Start, at.End - w.span.End, leaf.Start - w.leaf.Start, leaf.End - w.leaf.End} {
						if most := int64(tc.most); off > most || off < -most {
							t.Errorf("request %d is drawn %v wrong: %v to %v, its child %v to %v", id, time.Duration(off),
								time.Duration(at.Start-w.span.Start), time.Duration(at.End-w.span.End), time.Duration(leaf.Start-w.leaf.Start), time.Duration(leaf.End-w.leaf.End))
						}
					}
					if _, moved := b.original(id); moved != (uint64(at.Start) != tc.clock.of(w.span.Start) || uint64(at.End) != tc.clock.of(w.span.End)) {
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

// TestSetGuestDateTime: when the runtime sets the guest's clock, the old offset is forgotten at
// once. Neither that request nor one beside it is hours long, though only the shim's calls are
// known.
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
	first := attribute(b.get(1), names.OriginalStart)
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

// original returns a span's start on the guest's clock, if it differs from the drawn one.
func (b *bed) original(id uint64) (int64, bool) {
	v := attribute(b.get(id), names.OriginalStart)
	return v.GetIntValue(), v != nil
}
