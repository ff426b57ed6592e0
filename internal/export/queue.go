package export

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// maxQueued bounds the spans that wait in a [Queue], as the [Processor]'s queue does.
const maxQueued = 2048

// Queue is a client whose UploadTraces never waits: batches wait in it, within a
// bound, for a client that may be held up, by a disk that hangs for instance. What
// does not fit is dropped and counted.
//
// It is for those who upload while others wait for them. Errors of the client go to
// OpenTelemetry's error handler; the client counts the spans itself.
type Queue struct {
	client otlptrace.Client
	drops  Drops

	mu      sync.Mutex
	batches [][]*tracepb.ResourceSpans
	spans   int           // in batches, and on their way to the client
	closed  bool          // nothing more is taken
	done    chan struct{} // closed when the client has all; nil while it has
}

var _ otlptrace.Client = (*Queue)(nil)

// NewQueue returns a queue in front of a client. It runs a goroutine only while
// there is something to upload.
func NewQueue(client otlptrace.Client, drops Drops) *Queue {
	return &Queue{client: client, drops: drops}
}

// Start implements [otlptrace.Client]. It does nothing.
func (q *Queue) Start(context.Context) error { return nil }

// UploadTraces implements [otlptrace.Client]: it takes over the spans. It never fails.
func (q *Queue) UploadTraces(_ context.Context, spans []*tracepb.ResourceSpans) error {
	n := journal.CountSpans(&tracepb.TracesData{ResourceSpans: spans})
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		q.drops.Drop(ReasonShutdown, n)
		return nil
	}
	// One batch fits whatever its size is.
	if q.spans > 0 && q.spans+n > maxQueued {
		q.drops.Drop(ReasonQueueFull, n)
		return nil
	}
	q.batches = append(q.batches, spans)
	q.spans += n
	if q.done == nil {
		q.done = make(chan struct{})
		go q.run(q.done)
	}
	return nil
}

// Stop implements [otlptrace.Client]: it waits until the client has everything, and
// takes nothing more. What waits when the context ends is dropped and counted.
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
		q.drops.Drop(ReasonShutdown, journal.CountSpans(&tracepb.TracesData{ResourceSpans: b}))
	}
	q.batches = nil
	return ctx.Err()
}

// run uploads what there is.
func (q *Queue) run(done chan struct{}) {
	defer close(done)
	for {
		q.mu.Lock()
		if len(q.batches) == 0 {
			q.batches, q.done = nil, nil
			q.mu.Unlock()
			return
		}
		batch := q.batches[0]
		q.batches[0] = nil
		q.batches = q.batches[1:]
		q.mu.Unlock()
		handle(q.client.UploadTraces(context.Background(), batch))
		q.mu.Lock()
		q.spans -= journal.CountSpans(&tracepb.TracesData{ResourceSpans: batch})
		q.mu.Unlock()
	}
}
