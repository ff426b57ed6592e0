package collate

import (
	"testing"

	"github.com/shimtrace/shimtrace/internal/names"
)

// The guest's clock is off by d ms in these: its times for a call from 0 to 100.
func skewed(b *bed, d int64) {
	b.Add(spanOf("leaf", 7, 3, 2, d+30, d+40))
	b.Add(of(spanOf("do_create_container", 7, 2, 1, d+20, d+50), "a", ""))
	b.Add(of(spanOf("create_container", 7, 1, 0, d+10, d+90), "a", ""))
	b.Tick()
}

func TestSkewIsCorrected(t *testing.T) {
	for name, tc := range map[string]struct{ off, by int64 }{
		"ahead":           {1000, -990}, // so that it ends with the call
		"behind":          {-1000, 990}, // so that it begins with the call
		"far behind":      {-1_000_000_000_000, 999_999_999_990},
		"a little":        {14, -4},
		"within the call": {8, 0},
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
				start, end := attribute(s, names.OriginalStart), attribute(s, names.OriginalEnd)
				if (start != nil) != (tc.by != 0) || (end != nil) != (tc.by != 0) {
					t.Errorf("span %d has the original times %v, %v", id, start, end)
				}
				if start != nil && start.GetIntValue() != was {
					t.Errorf("span %d has the original time %d, want %d", id, start.GetIntValue(), was)
				}
			}
			// One offset for all of the sandbox.
			b.called("Kill", "a", "", 0xC2, 10_000, 10_100)
			b.Add(of(spanOf("signal_process", 8, 9, 0, tc.off+10_050, tc.off+10_060), "a", ""))
			b.Tick()
			b.want(9, ourTrace, 0xC2)
			if got := int64(b.get(9).StartTimeUnixNano) - (t0 + (10_050+tc.off)*ms); got != tc.by*ms {
				t.Errorf("the next RPC was moved by %d ms, want %d", got/ms, tc.by)
			}
		})
	}
}

// A request may be matched to the wrong one of several calls: it is drawn within that call, but
// teaches the clock nothing.
func TestSkewIsOnlyBelievedWhenSure(t *testing.T) {
	for name, tell := range map[string]func(b *bed){
		"another call could be meant": func(b *bed) {
			b.called("Create", "a", "", 0xC1, 0, 100)
			b.called("Create", "b", "", 0xC2, 5000, 5100)
			b.Add(spanOf("create_sandbox", 7, 1, 0, 300, 350))
		},
		"an RPC that is made often": func(b *bed) {
			b.called("Kill", "a", "", 0xC1, 0, 100)
			b.Add(of(spanOf("signal_process", 7, 1, 0, 300, 350), "a", ""))
		},
		"an exec by another name": func(b *bed) {
			b.called("Start", "a", "x", 0xC1, 0, 100)
			b.Add(of(spanOf("exec_process", 7, 1, 0, 300, 350), "a", "uuid"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, nil)
			tell(b)
			b.Add(spanOf("check", 8, 2, 0, 400, 450))
			b.Tick()
			b.want(1, ourTrace, 0xC1)
			b.drawn(1, 50, 100)
			b.drawn(2, 400, 450)
		})
	}
}

func TestEndBeforeStart(t *testing.T) {
	b := newBed(t, nil)
	b.Add(spanOf("wait_process", 7, 1, 0, 50, 10))
	b.Tick()
	s := b.get(1)
	if s.StartTimeUnixNano != s.EndTimeUnixNano || attribute(s, names.OriginalEnd).GetIntValue() != t0+10*ms {
		t.Errorf("sent as %v", s)
	}
}
