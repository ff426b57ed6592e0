package guard

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestWatch: a relay has the guard looked at as long as nobody else does, and begins
// again when the others have stopped.
func TestWatch(t *testing.T) {
	var mu sync.Mutex
	var others, told bool // that others look at the guard
	var looked, asked int
	count := func(n *int) int {
		mu.Lock()
		defer mu.Unlock()
		return *n
	}
	c := &Client{opts: ClientOptions{
		Every: time.Millisecond,
		Ensure: func() {
			mu.Lock()
			defer mu.Unlock()
			looked++
			if told {
				t.Error("it looks beside others")
			}
		},
		Watched: func() bool {
			mu.Lock()
			defer mu.Unlock()
			asked++
			told = others
			return told
		},
	}}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.watch(ctx)
	}()
	eventually(t, "it looks", func() bool { return count(&looked) > 2 })
	mu.Lock()
	others, asked = true, 0
	mu.Unlock()
	began := time.Now()
	const times = 20
	eventually(t, "it asks whether others look", func() bool { return count(&asked) >= times })
	// The pauses are 2, 4, and then 8 times as long, from half of that on.
	if took := time.Since(began); took < (times-3)*seldom*time.Millisecond/2 {
		t.Errorf("it asks %d times in %v", times, took)
	}
	mu.Lock()
	others, looked = false, 0
	mu.Unlock()
	eventually(t, "it looks again", func() bool { return count(&looked) > 2 })
	stop()
	<-over
}
