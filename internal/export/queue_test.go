package export

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// hungClient blocks until it is released.
type hungClient struct {
	losses.Ledger
	entered chan struct{}
	letGo   chan struct{}
	spans   int // after it was let go
}

func newHungClient() *hungClient {
	return &hungClient{entered: make(chan struct{}, 1<<16), letGo: make(chan struct{})}
}

func (*hungClient) Flush() error { return nil }

func (c *hungClient) Losses(of losses.Whose) *losses.Tally { return c.Of(of) }

func (c *hungClient) AppendSpans(_ *resourcepb.Resource, _ string, _ []byte, n int) error {
	c.entered <- struct{}{}
	<-c.letGo
	c.spans += n
	return nil
}

// queue adds so many spans to a queue.
func queue(q *Queue, n int) error { return q.AppendSpans(nil, "", nil, n) }

// TestQueueNeverWaits: with a hanging client, appends take no time, and what does not
// fit is dropped and counted. When it goes on, it gets the rest.
func TestQueueNeverWaits(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.Of(losses.Ours)
	const batch, batches = 16, 1000
	for range batches {
		if err := queue(q, batch); err != nil {
			t.Fatal(err)
		}
	}
	<-c.entered
	if want := batch*batches - maxQueued; int(drops.Of(losses.QueueFull)) != want {
		t.Errorf("dropped %v, want %d", drops.Counts(), want)
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil || c.spans != maxQueued {
		t.Errorf("it got %d spans of %d, %v", c.spans, maxQueued, err)
	}
	if err := queue(q, 3); err != nil || drops.Of(losses.Shutdown) != 3 {
		t.Errorf("after the end: %v, %v", drops.Counts(), err)
	}
}

// TestQueueEndsInTime: Stop does not wait for a hanging client.
func TestQueueEndsInTime(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.Of(losses.Ours)
	for range 3 {
		_ = queue(q, 5000) // one of any size fits
	}
	_ = queue(q, 1)
	<-c.entered
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := q.Stop(ctx); err == nil {
		t.Error("it says that it has uploaded all")
	}
	if int(drops.Of(losses.QueueFull)) != 2*5000+1 {
		t.Errorf("dropped %v", drops.Counts())
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestQueueCountsWhatWaits when Stop's time is too short.
func TestQueueCountsWhatWaits(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.Of(losses.Ours)
	_ = queue(q, 1)
	<-c.entered
	_ = queue(q, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Stop(ctx); err == nil || int(drops.Of(losses.Shutdown)) != 10 {
		t.Errorf("%v, dropped %v", err, drops.Counts())
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil || c.spans != 1 {
		t.Errorf("it got %d spans, %v", c.spans, err)
	}
}

// element is a span that has ended.
type element struct{}

func (element) AppendElement(b []byte) []byte { return append(b, "span"...) }

// collector keeps what it is given.
type collector struct {
	losses.Ledger
	mu    sync.Mutex
	sizes []int
	spans int
	err   error
}

func (*collector) Flush() error { return nil }

func (c *collector) Losses(of losses.Whose) *losses.Tally { return c.Of(of) }

func (c *collector) AppendSpans(_ *resourcepb.Resource, _ string, spans []byte, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(spans) != n*len("span") {
		panic("the number of spans is wrong")
	}
	c.sizes = append(c.sizes, n)
	c.spans += n
	return c.err
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans
}

var eventually = testkit.Until

// TestQueueGathers: spans that are taken one by one are appended in batches, when there are
// enough or after a while.
func TestQueueGathers(t *testing.T) {
	c := new(collector)
	q := NewQueue(c)
	var waiting atomic.Int64
	q.Waiting = &waiting
	for range fullBatch {
		q.Take("scope", element{})
	}
	eventually(t, "a full batch is appended", func() bool { return c.count() == fullBatch })
	for range 3 {
		q.Take("scope", element{})
	}
	q.Take("another", element{})
	eventually(t, "the rest is appended", func() bool { return c.count() == fullBatch+4 && waiting.Load() == 0 })
	if want := []int{fullBatch, 3, 1}; !slices.Equal(c.sizes, want) {
		t.Errorf("batches of %v, not of %v", c.sizes, want)
	}
	if err := q.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestQueueWaitTells: who waits learns that something could not be appended.
func TestQueueWaitTells(t *testing.T) {
	c := &collector{err: errors.New("broken")}
	q := NewQueue(c)
	q.Take("scope", element{})
	if err := q.Wait(t.Context()); !errors.Is(err, c.err) || c.count() != 1 {
		t.Errorf("%v, %d spans", err, c.count())
	}
	if err := q.Wait(t.Context()); err != nil {
		t.Errorf("when nothing waits: %v", err)
	}
	q.Take("scope", element{})
	if err := q.Stop(t.Context()); !errors.Is(err, c.err) {
		t.Errorf("at the end: %v", err)
	}
}

// TestQueueTakesNeverWait: with a hanging client, spans are taken at once, and what does not
// fit is dropped and counted.
func TestQueueTakesNeverWait(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.Of(losses.Ours)
	const ended = 5000
	for range ended {
		q.Take("scope", element{})
	}
	<-c.entered
	if want := ended - maxQueued; int(drops.Of(losses.QueueFull)) != want {
		t.Errorf("dropped %v, want %d", drops.Counts(), want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil || c.spans != maxQueued {
		t.Errorf("it got %d spans, %v", c.spans, err)
	}
	q.Take("scope", element{})
	if drops.Of(losses.Shutdown) != 1 {
		t.Errorf("after the end: %v", drops.Counts())
	}
}

func TestQueueConcurrently(t *testing.T) {
	c := new(collector)
	q := NewQueue(c)
	var waiting atomic.Int64
	q.Waiting = &waiting
	const writers, each = 4, 2000
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			for range each {
				q.Take([]string{"scope", "another"}[i%2], element{})
				if i == 3 {
					_ = q.AppendSpans(nil, "agents", []byte("spanspan"), 2)
				}
			}
		})
	}
	all.Go(func() {
		for range 50 {
			_ = q.Wait(t.Context())
		}
	})
	all.Wait()
	if err := q.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	drops := c.Of(losses.Ours)
	if got := c.count() + int(drops.Of(losses.QueueFull)); got != (writers+2)*each || waiting.Load() != 0 {
		t.Errorf("%d appended and dropped of %d, %d wait", got, (writers+2)*each, waiting.Load())
	}
}

func BenchmarkTake(b *testing.B) {
	q := NewQueue(new(collector))
	b.ReportAllocs()
	for b.Loop() {
		q.Take("scope", element{})
	}
	_ = q.Stop(context.Background())
}
