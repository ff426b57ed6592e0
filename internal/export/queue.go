package export

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// maxQueued bounds the spans that wait in a [Queue], as the [Processor]'s queue does.
const maxQueued = 2048

// Spans takes encoded spans and counts those that are lost, as [journal.Journal] does.
type Spans interface {
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Queue is a Spans whose AppendSpans never waits, for producers that others wait for.
// It holds batches, within a bound, for Spans that may block, for instance on a hanging
// disk. A batch that does not fit is dropped and counted.
//
// Errors go to OpenTelemetry's error handler; the Spans that fails counts the spans
// itself.
type Queue struct {
	Spans
	// Waiting is as in ProcessorOptions. It is set before the first append.
	Waiting *atomic.Int64

	mu      sync.Mutex
	batches []batch
	spans   int           // in batches and being appended
	closed  bool          // nothing more is taken
	done    chan struct{} // closed when all is appended; nil while idle
}

// batch is what AppendSpans was given.
type batch struct {
	resource *resourcepb.Resource
	scope    string
	spans    []byte
	n        int
}

var _ Spans = (*Queue)(nil)

// NewQueue returns a queue. It runs a goroutine only while something waits.
func NewQueue(to Spans) *Queue { return &Queue{Spans: to} }

// AppendSpans implements [Spans]. It keeps no part of spans, and never fails.
func (q *Queue) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.Losses(losses.Ours).Add(losses.Shutdown, n)
		return nil
	}
	// An empty queue takes a batch of any size.
	if q.spans > 0 && q.spans+n > maxQueued {
		q.Losses(losses.Ours).Add(losses.QueueFull, n)
		return nil
	}
	q.batches = append(q.batches, batch{resource, scope, bytes.Clone(spans), n})
	q.count(n)
	if q.done == nil {
		q.done = make(chan struct{})
		go q.run(q.done)
	}
	return nil
}

func (q *Queue) count(n int) {
	q.spans += n
	if q.Waiting != nil {
		q.Waiting.Add(int64(n))
	}
}

// Wait waits until the queue is empty.
func (q *Queue) Wait(ctx context.Context) error {
	q.mu.Lock()
	done := q.done
	q.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop waits until the queue is empty and takes no more spans. When the context ends,
// what still waits is dropped and counted.
func (q *Queue) Stop(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	err := q.Wait(ctx)
	if err == nil {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range q.batches {
		q.Losses(losses.Ours).Add(losses.Shutdown, b.n)
		q.count(-b.n)
	}
	q.batches = nil
	return err
}

// run appends the batches until none is left.
func (q *Queue) run(done chan struct{}) {
	defer close(done)
	for {
		q.mu.Lock()
		if len(q.batches) == 0 {
			q.batches, q.done = nil, nil
			q.mu.Unlock()
			return
		}
		b := q.batches[0]
		q.batches[0] = batch{}
		q.batches = q.batches[1:]
		q.mu.Unlock()
		handle(q.Spans.AppendSpans(b.resource, b.scope, b.spans, b.n))
		q.mu.Lock()
		q.count(-b.n)
		q.mu.Unlock()
	}
}
