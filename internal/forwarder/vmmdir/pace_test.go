package vmmdir

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace: looks come every millisecond at first, then ever more slowly, and seldom when
// nothing is expected.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(2 * time.Minute)
		next := func() time.Duration {
			d, _ := p.Next(time.Millisecond)
			return d
		}
		if d := next(); d != time.Millisecond {
			t.Errorf("at first after %v", d)
		}
		time.Sleep(5 * time.Second)
		if d := next(); d != 10*time.Millisecond {
			t.Errorf("after 5 s after %v", d)
		}
		p.Quicken()
		if d := next(); d != time.Millisecond {
			t.Errorf("when it is near after %v", d)
		}
		time.Sleep(100 * time.Second)
		if d := next(); d != slowest {
			t.Errorf("after 100 s after %v", d)
		}
		time.Sleep(20 * time.Second)
		if d := next(); d != idle {
			t.Errorf("after its time after %v", d)
		}
		p.Quicken()
		if d := next(); d != idle {
			t.Errorf("nothing is expected, yet after %v", d)
		}
		_, news := p.Next(0)
		p.Expect(0)
		select {
		case <-news:
		default:
			t.Error("nobody is told what is expected")
		}
		time.Sleep(time.Hour)
		if d := next(); d != slowest {
			t.Errorf("without an end after %v", d)
		}
		p.Settle()
		if d := next(); d != idle {
			t.Errorf("when all is there after %v", d)
		}
	})
}

// TestPaceIsCheap: two minutes of looks in vain are fewer than those of a poll every 20
// ms.
func TestPaceIsCheap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(2 * time.Minute)
		looks := 0
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); looks++ {
			d, _ := p.Next(time.Millisecond)
			time.Sleep(d)
		}
		if looks > 6000 {
			t.Errorf("%d looks", looks)
		}
		t.Logf("%d looks", looks)
	})
}
