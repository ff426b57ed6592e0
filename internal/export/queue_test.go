package export

import (
	"context"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// hungClient takes nothing until it is let go.
type hungClient struct {
	entered chan struct{}
	letGo   chan struct{}
	spans   int // after it was let go
}

func newHungClient() *hungClient {
	return &hungClient{entered: make(chan struct{}, 1<<16), letGo: make(chan struct{})}
}

func (*hungClient) Start(context.Context) error { return nil }
func (*hungClient) Stop(context.Context) error  { return nil }

func (c *hungClient) UploadTraces(_ context.Context, spans []*tracepb.ResourceSpans) error {
	c.entered <- struct{}{}
	<-c.letGo
	for _, rs := range spans {
		for _, ss := range rs.ScopeSpans {
			c.spans += len(ss.Spans)
		}
	}
	return nil
}

type dropCounts map[string]int

func (d dropCounts) Drop(reason string, spans int) { d[reason] += spans }

func spans(n int) []*tracepb.ResourceSpans {
	ss := &tracepb.ScopeSpans{}
	for range n {
		ss.Spans = append(ss.Spans, &tracepb.Span{})
	}
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{ss}}}
}

// TestQueueNeverWaits: a client that hangs costs what does not fit, which is counted,
// and no time; when it goes on, it gets what was kept.
func TestQueueNeverWaits(t *testing.T) {
	c, drops := newHungClient(), dropCounts{}
	q := NewQueue(c, drops)
	const batch, batches = 16, 1000
	for range batches {
		if err := q.UploadTraces(t.Context(), spans(batch)); err != nil {
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
	if err := q.UploadTraces(t.Context(), spans(3)); err != nil || drops[ReasonShutdown] != 3 {
		t.Errorf("after the end: %v, %v", drops, err)
	}
}

// TestQueueEndsInTime: the end does not wait for a client that hangs.
func TestQueueEndsInTime(t *testing.T) {
	c, drops := newHungClient(), dropCounts{}
	q := NewQueue(c, drops)
	for range 3 {
		_ = q.UploadTraces(t.Context(), spans(5000)) // one of any size fits
	}
	_ = q.UploadTraces(t.Context(), spans(1))
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
	c, drops := newHungClient(), dropCounts{}
	q := NewQueue(c, drops)
	_ = q.UploadTraces(t.Context(), spans(1))
	<-c.entered
	_ = q.UploadTraces(t.Context(), spans(10))
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
