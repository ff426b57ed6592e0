package ship

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
)

// takesAll is a backend that costs nothing.
type takesAll struct{}

func (takesAll) Start(context.Context) error                                  { return nil }
func (takesAll) Stop(context.Context) error                                   { return nil }
func (takesAll) UploadTraces(context.Context, []*tracepb.ResourceSpans) error { return nil }

// BenchmarkShip ships a journal of 2000 records of five spans, of 50 sandboxes.
func BenchmarkShip(b *testing.B) {
	j, err := journal.Open(b.TempDir(), journal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	text := func(s string) *commonpb.AnyValue {
		return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
	}
	bytes := 0
	for i := range 2000 {
		ss := &tracepb.ScopeSpans{}
		for k := range 5 {
			ss.Spans = append(ss.Spans, &tracepb.Span{
				TraceId: make([]byte, 16), SpanId: make([]byte, 8), Name: fmt.Sprint("span", k), StartTimeUnixNano: 1, EndTimeUnixNano: 2,
				Attributes: []*commonpb.KeyValue{{Key: "container.id", Value: text("c")}, {Key: "rpc.method", Value: text("Start")}},
			})
		}
		rs := []*tracepb.ResourceSpans{{
			Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "container.sandbox.id", Value: text(fmt.Sprint(i % 50))}}},
			ScopeSpans: []*tracepb.ScopeSpans{ss},
		}}
		if err := journaltest.Append(j, rs); err != nil {
			b.Fatal(err)
		}
	}
	segments, _ := filepath.Glob(filepath.Join(j.Dir(), "*.seg"))
	for _, s := range segments {
		if info, err := os.Stat(s); err == nil {
			bytes += int(info.Size())
		}
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		os.Remove(filepath.Join(j.Dir(), "shipped.json"))
		s := &Shipper{Dir: j.Dir(), Client: takesAll{}, Journal: j, Once: true}
		if err := s.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
