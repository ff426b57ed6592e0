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

// Spans is where encoded spans go, and the counts of those that are lost: what a
// [journal.Journal] has for them.
type Spans interface {
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Queue is Spans whose AppendSpans never waits: batches wait in it, within a bound, for
// Spans that may be held up, by a disk that hangs for instance. What does not fit is
// dropped and counted.
//
// It is for those who have spans while others wait for them. Errors go to
// OpenTelemetry's error handler; who fails counts the spans itself.
type Queue struct {
	Spans
	// Waiting is ProcessorOptions.Waiting, set before there is something to append.
	Waiting *atomic.Int64

	mu      sync.Mutex
	batches []batch
	spans   int           // in batches, and on their way
	closed  bool          // nothing more is taken
	done    chan struct{} // closed when all is appended; nil while it is
}

// batch is what AppendSpans was given.
type batch struct {
	resource *resourcepb.Resource
	scope    string
	spans    []byte
	n        int
}

var _ Spans = (*Queue)(nil)

// NewQueue returns a queue. It runs a goroutine only while there is something to append.
func NewQueue(to Spans) *Queue { return &Queue{Spans: to} }

// AppendSpans implements [Spans]. It keeps no part of spans, and never fails.
func (q *Queue) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.Losses(losses.Ours).Add(losses.Shutdown, n)
		return nil
	}
	// One batch fits whatever its size is.
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

// count counts spans in or out.
func (q *Queue) count(n int) {
	q.spans += n
	if q.Waiting != nil {
		q.Waiting.Add(int64(n))
	}
}

// Wait waits until everything is appended that is in the queue.
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

// Stop waits until everything is appended, and takes nothing more. What waits when the
// context ends is dropped and counted.
func (q *Queue) Stop(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	done := q.done
	q.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range q.batches {
		q.Losses(losses.Ours).Add(losses.Shutdown, b.n)
		q.count(-b.n)
	}
	q.batches = nil
	return ctx.Err()
}

// run appends what there is.
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
