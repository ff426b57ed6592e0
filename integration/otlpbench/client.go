package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"sync"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// way is how programs send.
type way struct {
	name string
	dial func(*server) (client, error)
}

type client interface {
	send(ctx context.Context, body []byte) error
	close()
}

var ways = []way{
	{"gRPC", func(s *server) (client, error) {
		conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
		return grpcClient{conn}, err
	}},
	{"HTTP, protobuf", func(s *server) (client, error) {
		return httpClient{"http://" + s.http + "/v1/traces", &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: programs}}}, nil
	}},
}

type grpcClient struct{ *grpc.ClientConn }

func (c grpcClient) send(ctx context.Context, body []byte) error {
	var answer []byte
	return c.Invoke(ctx, "/opentelemetry.proto.collector.trace.v1.TraceService/Export", &body, &answer)
}

func (c grpcClient) close() { c.Close() }

// raw is a codec of messages that are encoded already: the sender's work is not what is
// measured.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}
func (raw) Name() string { return "proto" }

type httpClient struct {
	url string
	*http.Client
}

func (c httpClient) send(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	answer, err := c.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return err
}

func (c httpClient) close() { c.CloseIdleConnections() }

// post is one post, like containerd's.
var post = sync.OnceValue(func() []byte {
	text := func(key, value string) *commonpb.KeyValue {
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
	}
	var spans []*tracepb.Span
	for i := range uint64(spansInPost) {
		id := binary.BigEndian.AppendUint64(nil, i+1)
		spans = append(spans, &tracepb.Span{
			TraceId: append(bytes.Repeat([]byte{7}, 8), id...), SpanId: id, ParentSpanId: bytes.Repeat([]byte{9}, 8), Flags: 0x101,
			Name: "runtime.v1.RuntimeService/RunPodSandbox", Kind: tracepb.Span_SPAN_KIND_SERVER,
			StartTimeUnixNano: 1_800_000_000_000_000_000, EndTimeUnixNano: 1_800_000_000_100_000_000,
			Attributes: []*commonpb.KeyValue{
				text("rpc.system", "grpc"), text("rpc.service", "runtime.v1.RuntimeService"), text("rpc.method", "RunPodSandbox"),
				text("k8s.pod.name", "web-0"), {Key: "rpc.grpc.status_code", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{}}},
			},
			Events: []*tracepb.Span_Event{{Name: "network set up", TimeUnixNano: 1_800_000_000_050_000_000, Attributes: []*commonpb.KeyValue{text("cni", "bridge")}}},
		})
	}
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource:   &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "containerd"), text("host.name", "node-1")}},
		ScopeSpans: []*tracepb.ScopeSpans{{Scope: &commonpb.InstrumentationScope{Name: "bench"}, Spans: spans}},
	}}})
	if err != nil {
		panic(err)
	}
	return body
})
