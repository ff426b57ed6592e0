package export

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/losses"
)

const (
	// maxQueued bounds the spans that wait in a [Queue].
	maxQueued = 2048
	// fullBatch is the number of spans at which those that were taken are appended at
	// once. No append has more of them.
	fullBatch = 256
	// batchDelay is how long a span that was taken waits at most for others: a trace can be
	// read while its pod runs.
	batchDelay = 500 * time.Millisecond
	// keepSpare is the largest buffer that is kept for the next batch while nothing waits.
	keepSpare = 4 << 10
)

// Spans takes encoded spans and counts those that are lost, as [journal.Journal] does.
type Spans interface {
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
	Losses(of losses.Whose) *losses.Tally
	Flush() error
}

// Queue is a Spans whose AppendSpans never waits, and a Sink, for producers that others wait
// for. It holds batches, within a bound, for Spans that may block, for instance on a hanging
// disk. Spans that are taken one by one wait for others until there is a batch of them. What
// does not fit is dropped and counted.
//
// Errors go to OpenTelemetry's error handler. The Spans that fails counts the lost spans itself.
type Queue struct {
	Spans
	// Waiting is the number of spans that are neither appended nor counted as lost; nil: not
	// kept. Another process may read it. It is set before the first span.
	Waiting *atomic.Int64
	// Resource is that of spans that are taken.
	Resource *resourcepb.Resource

	mu      sync.Mutex
	batches []batch
	due     int        // how many of the first batches wait only for their turn
	spans   int        // in batches and being appended
	closed  bool       // nothing more is taken
	under   *appending // nil while idle
	timer   *time.Timer
	waits   bool // the timer runs
	spare   []byte
}

// appending is the work of one goroutine, which ends when all that is due is appended.
type appending struct {
	done chan struct{} // closed at its end
	err  error         // the first one; to be read once done is closed
}

// batch is what AppendSpans is given.
type batch struct {
	resource *resourcepb.Resource
	scope    string
	spans    []byte
	n        int
	taken    bool // one by one: more may come
}

var (
	_ Spans = (*Queue)(nil)
	_ Sink  = (*Queue)(nil)
)

// NewQueue returns a queue. It runs a goroutine only while something is due.
func NewQueue(to Spans) *Queue { return &Queue{Spans: to} }

// AppendSpans implements [Spans]. It keeps no part of spans, and never fails.
func (q *Queue) AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.admit(n) {
		return nil
	}
	q.batches = append(q.batches, batch{resource: resource, scope: scope, spans: bytes.Clone(spans), n: n})
	q.run()
	return nil
}

// Take implements [Sink].
func (q *Queue) Take(scope string, span Ended) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.admit(1) {
		return
	}
	b := q.open(scope)
	b.spans = span.AppendElement(b.spans)
	if b.n++; b.n == fullBatch {
		q.run()
	} else {
		q.await()
	}
}

// admit counts spans in, and reports whether there is room for them. An empty queue takes
// a batch of any size.
func (q *Queue) admit(n int) bool {
	switch {
	case q.closed:
		q.Losses(losses.Ours).Add(losses.Shutdown, n)
	case q.spans > 0 && q.spans+n > maxQueued:
		q.Losses(losses.Ours).Add(losses.QueueFull, n)
	default:
		q.count(n)
		return true
	}
	return false
}

// open returns the batch of a scope's spans that one more can be put into.
func (q *Queue) open(scope string) *batch {
	for i := q.due; i < len(q.batches); i++ {
		if b := &q.batches[i]; b.taken && b.scope == scope && b.n < fullBatch {
			return b
		}
	}
	q.batches = append(q.batches, batch{resource: q.Resource, scope: scope, spans: q.spare[:0], taken: true})
	q.spare = nil
	return &q.batches[len(q.batches)-1]
}

// await makes what waits due after batchDelay.
func (q *Queue) await() {
	switch {
	case q.waits:
		return
	case q.timer == nil:
		q.timer = time.AfterFunc(batchDelay, q.expire)
	default:
		q.timer.Reset(batchDelay)
	}
	q.waits = true
}

func (q *Queue) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waits = false
	q.run()
}

// run makes all batches due, and starts a goroutine to append them unless one is at work.
func (q *Queue) run() {
	q.due = len(q.batches)
	if q.due > 0 && q.under == nil {
		q.under = &appending{done: make(chan struct{})}
		go q.appendDue(q.under)
	}
}

func (q *Queue) count(n int) {
	q.spans += n
	if q.Waiting != nil {
		q.Waiting.Add(int64(n))
	}
}

// Wait waits until all that is in the queue now has been appended, and returns an error if
// something could not be.
func (q *Queue) Wait(ctx context.Context) error {
	q.mu.Lock()
	q.run()
	under := q.under
	q.mu.Unlock()
	if under == nil {
		return nil
	}
	select {
	case <-under.done:
		return under.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stop waits until the queue is empty and takes no more spans. When the context ends,
// what still waits is dropped and counted.
func (q *Queue) Stop(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.mu.Unlock()
	err := q.Wait(ctx)
	if ctx.Err() == nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, b := range q.batches {
		q.Losses(losses.Ours).Add(losses.Shutdown, b.n)
		q.count(-b.n)
	}
	q.batches, q.due = nil, 0
	return err
}

// appendDue appends the batches that are due until none is left.
func (q *Queue) appendDue(a *appending) {
	defer close(a.done)
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.due > 0 {
		b := q.batches[0]
		q.batches[0] = batch{}
		q.batches = q.batches[1:]
		q.due--
		q.mu.Unlock()
		err := q.Spans.AppendSpans(b.resource, b.scope, b.spans, b.n)
		if err != nil {
			otel.Handle(err)
			if a.err == nil {
				a.err = err
			}
		}
		q.mu.Lock()
		q.count(-b.n)
		if cap(b.spans) <= keepSpare || b.n == fullBatch {
			q.spare = b.spans
		}
	}
	q.under = nil
	if len(q.batches) == 0 {
		q.batches = nil
		if cap(q.spare) > keepSpare {
			q.spare = nil
		}
	} else {
		q.await()
	}
}
