package export

import (
	"context"
	"testing"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// hungClient takes nothing until it is let go.
type hungClient struct {
	dropCounts
	entered chan struct{}
	letGo   chan struct{}
	spans   int // after it was let go
}

func newHungClient() *hungClient {
	return &hungClient{dropCounts: dropCounts{}, entered: make(chan struct{}, 1<<16), letGo: make(chan struct{})}
}

func (*hungClient) Flush() error { return nil }

func (c *hungClient) AppendSpans(_ *resourcepb.Resource, _ string, _ []byte, n int) error {
	c.entered <- struct{}{}
	<-c.letGo
	c.spans += n
	return nil
}

type dropCounts map[string]int

func (d dropCounts) Drop(reason string, spans int) { d[reason] += spans }

// queue gives so many spans to a queue.
func queue(q *Queue, n int) error { return q.AppendSpans(nil, "", nil, n) }

// TestQueueNeverWaits: a client that hangs costs what does not fit, which is counted,
// and no time; when it goes on, it gets what was kept.
func TestQueueNeverWaits(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.dropCounts
	const batch, batches = 16, 1000
	for range batches {
		if err := queue(q, batch); err != nil {
			t.Fatal(err)
		}
	}
	<-c.entered
	if want := batch*batches - maxQueued; drops[ReasonQueueFull] != want {
		t.Errorf("dropped %v, want %d", drops, want)
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil || c.spans != maxQueued {
		t.Errorf("it got %d spans of %d, %v", c.spans, maxQueued, err)
	}
	if err := queue(q, 3); err != nil || drops[ReasonShutdown] != 3 {
		t.Errorf("after the end: %v, %v", drops, err)
	}
}

// TestQueueEndsInTime: the end does not wait for a client that hangs.
func TestQueueEndsInTime(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.dropCounts
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
	if drops[ReasonQueueFull] != 2*5000+1 {
		t.Errorf("dropped %v", drops)
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestQueueCountsWhatWaits at an end that comes too soon.
func TestQueueCountsWhatWaits(t *testing.T) {
	c := newHungClient()
	q, drops := NewQueue(c), c.dropCounts
	_ = queue(q, 1)
	<-c.entered
	_ = queue(q, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.Stop(ctx); err == nil || drops[ReasonShutdown] != 10 {
		t.Errorf("%v, dropped %v", err, drops)
	}
	close(c.letGo)
	if err := q.Stop(t.Context()); err != nil || c.spans != 1 {
		t.Errorf("it got %d spans, %v", c.spans, err)
	}
}
