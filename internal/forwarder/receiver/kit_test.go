package receiver

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

var check = testkit.Check

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

// spanOf returns a valid span like those of containerd.
func spanOf(i int) *tracepb.Span {
	id := binary.BigEndian.AppendUint64(nil, uint64(i)+1)
	return &tracepb.Span{
		TraceId: append(bytes.Repeat([]byte{7}, 8), id...), SpanId: id, ParentSpanId: bytes.Repeat([]byte{9}, 8), Flags: 0x101,
		Name: "runtime.v1.RuntimeService/RunPodSandbox", Kind: tracepb.Span_SPAN_KIND_SERVER,
		StartTimeUnixNano: 1_800_000_000_000_000_000, EndTimeUnixNano: 1_800_000_000_100_000_000,
		Attributes: []*commonpb.KeyValue{
			text("rpc.system", "grpc"), text("rpc.service", "runtime.v1.RuntimeService"), text("rpc.method", "RunPodSandbox"),
			text("k8s.pod.name", "web-0"), {Key: "rpc.grpc.status_code", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{}}},
		},
		Events: []*tracepb.Span_Event{{Name: "network set up", TimeUnixNano: 1_800_000_000_050_000_000, Attributes: []*commonpb.KeyValue{text("cni", "bridge")}}},
		Links:  []*tracepb.Span_Link{{TraceId: bytes.Repeat([]byte{3}, 16), SpanId: bytes.Repeat([]byte{4}, 8)}},
	}
}

// spansOf returns the spans of a service.
func spansOf(service string, spans ...*tracepb.Span) *tracepb.ResourceSpans {
	return &tracepb.ResourceSpans{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("host.name", "node"), text("service.name", service)}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "scope", Version: "1"}, Spans: spans}},
	}
}

func some(n int) (spans []*tracepb.Span) {
	for i := range n {
		spans = append(spans, spanOf(i))
	}
	return spans
}

func body(t testing.TB, all ...*tracepb.ResourceSpans) []byte {
	t.Helper()
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: all})
	check(t, err)
	return b
}

// taken is a Sink that keeps what it takes.
type taken struct {
	mu    sync.Mutex
	posts []string // peer, service and number of spans
	data  []*tracepb.ResourceSpans
	err   error         // for Done
	hold  chan struct{} // Done comes when it is closed; nil: at once
}

func (s *taken) take(p *Post) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range p.Batches {
		var t tracepb.TracesData
		if err := proto.Unmarshal(b.Data, &t); err != nil {
			panic(err)
		}
		s.posts = append(s.posts, fmt.Sprintf("%s %d", b.Service, b.Spans))
		s.data = append(s.data, t.ResourceSpans...)
	}
	if s.hold == nil {
		p.Done(s.err)
		return
	}
	go func() {
		<-s.hold
		p.Done(s.err)
	}()
}

func (s *taken) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.posts, ", ")
}

// serving serves on a port of the loopback interface until the test ends. By then, all
// memory has been given back.
func serving(t testing.TB, sink Sink, opts Options) (r *Receiver, at string) {
	t.Helper()
	if opts.Counters == nil {
		opts.Counters = &Counters{Losses: new(losses.Tally)}
	}
	r = New(sink, opts)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	serve(t, r, l)
	return r, l.Addr().String()
}

func serve(t testing.TB, r *Receiver, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- r.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.Close(ctx)
		l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for end := time.Now().Add(testkit.Patience); r.room.Free() != r.opts.RoomBytes; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of %d bytes are free", r.room.Free(), r.opts.RoomBytes)
			}
		}
	})
}
