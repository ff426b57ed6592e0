package export

import (
	"context"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/losses"
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
