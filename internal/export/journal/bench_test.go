package journal

import (
	"fmt"
	"testing"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// typical is a batch as a relay writes it: n spans with a handful of attributes.
func typical(n int) []*tracepb.ResourceSpans {
	attr := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	names := make([]string, n)
	for i := range names {
		names[i] = "containerd.task.v3.Task/Create"
	}
	b := batch(names...)
	for _, s := range b[0].ScopeSpans[0].Spans {
		s.Attributes = append(s.Attributes,
			attr("rpc.system.name", "ttrpc"), attr("rpc.method", "containerd.task.v3.Task/Create"),
			attr("rpc.response.status_code", "OK"), attr("container.id", fmt.Sprintf("%064d", 1)))
	}
	return b
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("spans=%d", n), func(b *testing.B) {
			j := open(b, b.TempDir(), Options{})
			spans := typical(n)
			b.ReportAllocs()
			for b.Loop() {
				if err := journaltest.Append(j, spans); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/span")
		})
	}
}

func BenchmarkScan(b *testing.B) {
	j := open(b, b.TempDir(), Options{})
	for range 500 {
		if err := journaltest.Append(j, typical(16)); err != nil {
			b.Fatal(err)
		}
	}
	st, err := Scan(j.Dir(), func(Record) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(st.Bytes)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Scan(j.Dir(), func(Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
