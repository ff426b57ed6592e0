package metrics

import (
	"maps"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/names"
)

// spansOf are the spans of a scope, of which a resource's service and runtime are known.
func spansOf(runtime, scope string, spans ...*tracepb.Span) *tracepb.ResourceSpans {
	kv := func(k, v string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: k, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: v}}}
	}
	return &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{kv(names.Service, "containerd-shim-"+runtime+"-v2"), kv(names.Runtime, runtime), kv(names.Sandbox, runtime)}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: scope}, Spans: spans}},
	}
}

// began is a start of a sandbox.
func began(id byte, took time.Duration, failed bool) *tracepb.Span {
	s := &tracepb.Span{
		TraceId: append(make([]byte, 15), id), SpanId: append(make([]byte, 7), id), Name: names.SandboxStart,
		StartTimeUnixNano: 1e18, EndTimeUnixNano: 1e18 + uint64(took),
	}
	if failed {
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR}
	}
	return s
}

func walked(data []byte) (counts map[string]int, starts []start) {
	counts = make(map[string]int)
	walk(data, func(origin string, n int) { counts[origin] += n }, func(s start) { starts = append(starts, s) })
	return counts, starts
}

// TestWalk: spans count by scope, and only the shim's are starts.
func TestWalk(t *testing.T) {
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{
		spansOf("runc", names.ShimScope, began(1, time.Second, false), &tracepb.Span{Name: "x"}),
		spansOf("runc", names.CallScope, &tracepb.Span{Name: "Task/Create"}),
		spansOf("kata", names.AgentScope, began(2, time.Second, false)), // a guest's word is none
		spansOf("kata", names.RuntimeScope, &tracepb.Span{Name: "y"}, &tracepb.Span{Name: "z"}),
		spansOf("kata", names.ShimScope, began(3, 2*time.Second, true)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	counts, starts := walked(data)
	if want := map[string]int{originShim: 4, originAgent: 1, originRuntime: 2}; !maps.Equal(counts, want) {
		t.Errorf("%v, want %v", counts, want)
	}
	if len(starts) != 2 || starts[0].runtime != "runc" || starts[0].took != time.Second || starts[0].failed || starts[0].trace[15] != 1 || starts[0].span[7] != 1 ||
		starts[1].runtime != "kata" || !starts[1].failed {
		t.Errorf("%+v", starts)
	}
}

// FuzzWalk: of what is OTLP, every span is counted once; nothing else harms.
func FuzzWalk(f *testing.F) {
	data, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{spansOf("runc", names.ShimScope, began(1, 1, true))}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("\x0a\x02\x12\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		counts, starts := walked(data)
		var td tracepb.TracesData
		if proto.Unmarshal(data, &td) != nil {
			return
		}
		want, got := 0, 0
		for _, rs := range td.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				want += len(ss.Spans)
			}
		}
		for _, n := range counts {
			got += n
		}
		if got != want || len(starts) > want {
			t.Errorf("%d spans and %d starts, want %d", got, len(starts), want)
		}
	})
}
