package export

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// ProcessorOptions of a [Processor]. Zero values mean the defaults.
type ProcessorOptions struct {
	// Queue is how many ended spans wait at most (default 2048).
	Queue int
	// Batch is the number of spans at which they are exported at once (default
	// 256). No export has more.
	Batch int
	// Delay is how long an ended span waits at most for others (default 500 ms):
	// a trace can be read while its pod runs.
	Delay time.Duration
	// Losses counts the spans that were lost; nil: they are not counted.
	Losses *losses.Tally
	// Waiting is the number of spans that have ended and are neither exported nor
	// counted as lost; nil: not kept. Another process may read it.
	Waiting *atomic.Int64
}

func (o *ProcessorOptions) defaults() {
	if o.Queue <= 0 {
		o.Queue = 2048
	}
	if o.Batch <= 0 {
		o.Batch = 256
	}
	o.Batch = min(o.Batch, o.Queue)
	if o.Waiting == nil {
		o.Waiting = new(atomic.Int64)
	}
	if o.Delay <= 0 {
		o.Delay = 500 * time.Millisecond
	}
}

// Processor hands ended spans to an exporter in batches. OnEnd never blocks and
// allocates nothing once the queue has grown. In contrast to the SDK's batch processor,
// it says what it dropped.
//
// The exporter counts the spans it fails to export. Its errors go to OpenTelemetry's
// error handler.
type Processor struct {
	exporter sdktrace.SpanExporter
	opts     ProcessorOptions

	mu      sync.Mutex
	queue   []sdktrace.ReadOnlySpan
	full    int // dropped since the last batch: the queue was full
	stopped bool

	wake   chan struct{} // the queue has its first span, or a batch
	flush  chan chan error
	stop   chan struct{}
	done   chan struct{}
	ctx    context.Context // of exports; ends when Shutdown's time is over
	cancel context.CancelFunc
	once   sync.Once

	spare []sdktrace.ReadOnlySpan // the queue's other buffer; only run uses it
}

var _ sdktrace.SpanProcessor = (*Processor)(nil)

// NewProcessor starts a processor. Shutdown ends it.
func NewProcessor(exporter sdktrace.SpanExporter, opts ProcessorOptions) *Processor {
	opts.defaults()
	p := &Processor{
		exporter: exporter,
		opts:     opts,
		wake:     make(chan struct{}, 1),
		flush:    make(chan chan error),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	go p.run()
	return p
}

// OnStart implements [sdktrace.SpanProcessor]. It does nothing.
func (p *Processor) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd queues a sampled span.
func (p *Processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	p.mu.Lock()
	if p.stopped {
		p.mu.Unlock()
		p.opts.Losses.Add(losses.Shutdown, 1)
		return
	}
	if len(p.queue) < p.opts.Queue {
		p.queue = append(p.queue, s)
		p.opts.Waiting.Add(1)
	} else {
		p.full++
	}
	n := len(p.queue)
	p.mu.Unlock()
	// The goroutine is woken once to watch the time and once when a batch is
	// ready, not for each span.
	if n == 1 || n == p.opts.Batch {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// ForceFlush exports what has ended so far. When the context ends first, the
// export goes on without the caller.
func (p *Processor) ForceFlush(ctx context.Context) error {
	result := make(chan error, 1)
	select {
	case p.flush <- result:
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown exports what has ended so far and shuts the exporter down. When the
// context ends first, the spans that are left are dropped and counted.
func (p *Processor) Shutdown(ctx context.Context) error {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.once.Do(func() { close(p.stop) })
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.cancel()
		return ctx.Err()
	}
}

// run exports batches until Shutdown.
func (p *Processor) run() {
	defer close(p.done)
	defer p.cancel()
	timer := time.NewTimer(p.opts.Delay)
	timer.Stop()
	waiting := false // the timer runs
	for {
		select {
		case <-p.wake:
			if p.queued() < p.opts.Batch {
				if !waiting {
					timer.Reset(p.opts.Delay)
					waiting = true
				}
				continue
			}
			handle(p.export())
		case <-timer.C:
			handle(p.export())
		case result := <-p.flush:
			result <- p.export()
		case <-p.stop:
			handle(p.export())
			handle(p.exporter.Shutdown(p.ctx))
			return
		}
		timer.Stop()
		waiting = false
	}
}

func (p *Processor) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// export hands everything queued to the exporter and reports what was dropped.
func (p *Processor) export() error {
	p.mu.Lock()
	spans, full := p.queue, p.full
	p.queue, p.full = p.spare[:0], 0
	p.mu.Unlock()

	p.opts.Losses.Add(losses.QueueFull, full)
	var first error
	for rest := spans; len(rest) > 0; {
		if p.ctx.Err() != nil {
			p.opts.Losses.Add(losses.Shutdown, len(rest))
			p.opts.Waiting.Add(-int64(len(rest)))
			break
		}
		n := min(len(rest), p.opts.Batch)
		if err := p.exporter.ExportSpans(p.ctx, rest[:n]); err != nil && first == nil {
			first = err
		}
		p.opts.Waiting.Add(-int64(n))
		rest = rest[n:]
	}
	clear(spans)
	p.spare = spans
	return first
}

func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}
