package collate

import (
	"encoding/binary"
	"syscall"
	"testing"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// BenchmarkCapture places a capture repeatedly, each time with other ids: the life of a pod,
// calls included. It includes copying the spans, since the Collator owns what it gets.
func BenchmarkCapture(b *testing.B) {
	for _, name := range []string{"kata-3.28.0-agent", "kata-4.1.0-pod.agent", "kata-4.1.0-rs-pod.agent"} {
		b.Run(name, func(b *testing.B) {
			spans := captured.AgentSpans(b, name)
			discard := func(o *Options) { o.Sink = func(*resourcepb.Resource, string, []byte, int) {} }
			bed := newBed(b, discard)
			bed.called("Create", "a", "", 0xC1, 0, 100)
			b.ReportAllocs()
			round := uint64(0)
			start := cpu(b)
			for b.Loop() {
				round++
				for _, s := range spans {
					bed.Add(again(s, round))
				}
				bed.Ended()
			}
			total := float64(b.N * len(spans))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/total, "ns/span")
			b.ReportMetric(float64(cpu(b)-start)/total, "cpu-ns/span")
		})
	}
}

// cpu returns the process's processor time, in nanoseconds: unlike elapsed time, it is
// meaningful on a busy machine.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// again returns a copy of a span with other ids.
func again(s *span.Span, round uint64) *span.Span {
	c := s.Clone()
	other := func(id []byte) {
		if n := binary.BigEndian.Uint64(id); n != 0 {
			binary.BigEndian.PutUint64(id, n+round)
		}
	}
	other(c.SpanID[:])
	other(c.ParentID[:])
	other(c.TraceID[8:])
	return c
}

// BenchmarkCall reports calls, as the relay does.
func BenchmarkCall(b *testing.B) {
	bed := newBed(b, nil)
	b.ReportAllocs()
	for id := uint64(1); b.Loop(); id++ {
		bed.called("Stats", "a", "", 1<<32+id, 0, 100)
	}
}

// BenchmarkFlood is the worst that a guest can do: spans that wait for parents that never
// arrive.
func BenchmarkFlood(b *testing.B) {
	bed := newBed(b, func(o *Options) { o.Sink = func(*resourcepb.Resource, string, []byte, int) {} })
	b.ReportAllocs()
	start := cpu(b)
	defer func() { b.ReportMetric(float64(cpu(b)-start)/float64(b.N), "cpu-ns/span") }()
	for i := uint64(1); b.Loop(); i++ {
		bed.Add(spanOf("x", i, 1<<32+2*i, 1<<32+2*i+1, 0, 1))
	}
}
