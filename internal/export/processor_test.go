package export

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// exporter keeps the spans it gets; while gate is set, each export waits for it.
type exporter struct {
	mu       sync.Mutex
	batches  []int
	names    []string
	shutdown int
	gate     chan struct{}
	entered  chan struct{}
	err      error
}

func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if e.gate != nil {
		select {
		case e.entered <- struct{}{}:
		default:
		}
		select {
		case <-e.gate:
		case <-ctx.Done():
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.batches = append(e.batches, len(spans))
	for _, s := range spans {
		e.names = append(e.names, s.Name())
	}
	return e.err
}

func (e *exporter) Shutdown(context.Context) error { e.shutdown++; return nil }

func (e *exporter) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.names)
}

func endedSpan(sampled bool) sdktrace.ReadOnlySpan {
	return tracetest.SpanStub{
		Name: "span",
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1},
			TraceFlags: trace.TraceFlags(0).WithSampled(sampled),
		}),
	}.Snapshot()
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestProcessorExportsByDelayAndByCount(t *testing.T) {
	for name, o := range map[string]ProcessorOptions{
		"delay": {Delay: time.Millisecond},
		"count": {Delay: time.Hour, Batch: 3},
	} {
		t.Run(name, func(t *testing.T) {
			e := &exporter{}
			p := NewProcessor(e, o)
			defer p.Shutdown(t.Context())
			for range 3 {
				p.OnEnd(endedSpan(true))
			}
			p.OnEnd(endedSpan(false))
			eventually(t, "3 spans exported", func() bool { return e.count() == 3 })
		})
	}
}

func TestProcessorForceFlush(t *testing.T) {
	e := &exporter{err: errors.New("broken")}
	p := NewProcessor(e, ProcessorOptions{Delay: time.Hour, Batch: 4})
	for range 3 {
		p.OnEnd(endedSpan(true))
	}
	if err := p.ForceFlush(t.Context()); !errors.Is(err, e.err) {
		t.Errorf("ForceFlush: %v", err)
	}
	if e.count() != 3 {
		t.Errorf("%d spans", e.count())
	}
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := p.ForceFlush(t.Context()); err != nil {
		t.Errorf("ForceFlush after Shutdown: %v", err)
	}
}

func TestProcessorNeverBlocksAndCounts(t *testing.T) {
	const queue, ended = 8, 100
	var d losses.Tally
	e := &exporter{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	p := NewProcessor(e, ProcessorOptions{Queue: queue, Batch: 2, Losses: &d})
	p.OnEnd(endedSpan(true))
	p.OnEnd(endedSpan(true))
	<-e.entered // the exporter hangs
	for range ended - 2 {
		p.OnEnd(endedSpan(true))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.ForceFlush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("ForceFlush of a hanging exporter: %v", err)
	}
	close(e.gate)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := int(d.Of(losses.QueueFull)); got != ended-queue-2 || e.count() != queue+2 {
		t.Errorf("dropped %d, exported %d of %d", got, e.count(), ended)
	}
	for _, n := range e.batches {
		if n > 2 {
			t.Errorf("a batch of %d", n)
		}
	}
	if e.shutdown != 1 {
		t.Errorf("exporter shut down %d times", e.shutdown)
	}
	p.OnEnd(endedSpan(true))
	if int(d.Of(losses.Shutdown)) != 1 {
		t.Errorf("a span after Shutdown: %v", d.Counts())
	}
}

func TestProcessorShutdownIsBounded(t *testing.T) {
	var d losses.Tally
	e := &exporter{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	p := NewProcessor(e, ProcessorOptions{Queue: 8, Batch: 2, Delay: time.Hour, Losses: &d})
	for range 5 {
		p.OnEnd(endedSpan(true))
	}
	<-e.entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	<-p.done
	// The export under way answers for its own spans.
	if e.count()+int(d.Of(losses.Shutdown)) != 5 || int(d.Of(losses.Shutdown)) == 0 {
		t.Errorf("exported %d, dropped %v", e.count(), d.Counts())
	}
}

func TestProcessorConcurrently(t *testing.T) {
	var d losses.Tally
	e := &exporter{}
	p := NewProcessor(e, ProcessorOptions{Queue: 64, Batch: 16, Delay: time.Millisecond, Losses: &d})
	var wg sync.WaitGroup
	const writers, each = 4, 2000
	for range writers {
		wg.Go(func() {
			for range each {
				p.OnEnd(endedSpan(true))
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			_ = p.ForceFlush(t.Context())
		}
	})
	wg.Wait()
	if err := p.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := e.count() + int(d.Of(losses.QueueFull)); got != writers*each {
		t.Errorf("%d exported and dropped, %d ended", got, writers*each)
	}
}

func BenchmarkOnEnd(b *testing.B) {
	e := &discard{}
	p := NewProcessor(e, ProcessorOptions{})
	defer p.Shutdown(context.Background())
	s := endedSpan(true)
	b.ReportAllocs()
	for b.Loop() {
		p.OnEnd(s)
	}
}

type discard struct{}

func (discard) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (discard) Shutdown(context.Context) error                             { return nil }
