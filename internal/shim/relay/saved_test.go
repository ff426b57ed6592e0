package relay

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestSaverBeginsWhileOthersSave(t *testing.T) {
	var s saver
	var saved atomic.Bool
	var running, over sync.WaitGroup
	for range 4 {
		running.Add(1)
		over.Go(func() {
			s.now()
			running.Done()
			for !saved.Load() {
				s.now()
				s.soon()
			}
		})
	}
	running.Wait()
	s.begin(func() { saved.Store(true) })
	if !saved.Load() {
		t.Error("nothing is saved at the beginning")
	}
	over.Wait()
}
