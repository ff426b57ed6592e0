package relay

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestSaverBeginsWhileOthersSave(t *testing.T) {
	var s saver
	var saved atomic.Int32
	var others sync.WaitGroup
	for range 4 {
		others.Go(s.now)
		others.Go(s.soon)
	}
	s.begin(func() { saved.Add(1) })
	if saved.Load() == 0 {
		t.Error("nothing is saved at the beginning")
	}
	others.Wait()
}
