package client

import (
	"compress/gzip"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	_ "google.golang.org/grpc/encoding/gzip"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// collector is an OTLP receiver, by HTTP or gRPC, on the loopback interface.
type collector struct {
	coltracepb.UnimplementedTraceServiceServer

	mu       sync.Mutex
	names    []string
	headers  map[string]string // of the last upload
	path     string
	gzip     bool
	attempts int
	fail     func(http.ResponseWriter) // HTTP: answers instead of taking
	failRPC  func() error              // gRPC: the same
	// most is the number of spans up to which gRPC calls succeed despite failRPC.
	most int
	// refuseGzip answers gRPC calls that are compressed.
	refuseGzip error
	partial    *coltracepb.ExportTracePartialSuccess
}

func (c *collector) take(req *coltracepb.ExportTraceServiceRequest) *coltracepb.ExportTraceServiceResponse {
	for _, rs := range req.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				c.names = append(c.names, s.Name)
			}
		}
	}
	return &coltracepb.ExportTraceServiceResponse{PartialSuccess: c.partial}
}

func (c *collector) taken() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.names)
}

// distinct returns the number of different names among the spans taken.
func (c *collector) distinct() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[string]bool)
	for _, n := range c.names {
		seen[n] = true
	}
	return len(seen)
}

func (c *collector) tried() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attempts
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts++
	c.path, c.headers = r.URL.Path, map[string]string{"tenant": r.Header.Get("tenant")}
	body := io.Reader(r.Body)
	if c.gzip = r.Header.Get("Content-Encoding") == "gzip"; c.gzip {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	b, err := io.ReadAll(body)
	var req coltracepb.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(b, &req) != nil {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	if c.fail != nil {
		c.fail(w)
		return
	}
	answer, _ := proto.Marshal(c.take(&req))
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

// Export implements [coltracepb.TraceServiceServer].
func (c *collector) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts++
	md, _ := metadata.FromIncomingContext(ctx)
	c.headers = make(map[string]string)
	for k, v := range md {
		c.headers[k] = v[0]
	}
	if c.failRPC != nil && (c.most == 0 || journal.CountSpans(&tracepb.TracesData{ResourceSpans: req.ResourceSpans}) > c.most) {
		return nil, c.failRPC()
	}
	if s := grpc.ServerTransportStreamFromContext(ctx); c.refuseGzip != nil && s.(interface{ RecvCompress() string }).RecvCompress() == "gzip" {
		return nil, c.refuseGzip
	}
	return c.take(req), nil
}

// quiet is a discarded log, for servers that get malformed input.
var quiet = log.New(io.Discard, "", 0)

func resourceOf(sandbox string) *resourcepb.Resource {
	id := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sandbox}}
	return &resourcepb.Resource{Attributes: []*commonpb.KeyValue{{Key: "container.sandbox.id", Value: id}}}
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serveHTTP serves on the listener until the returned function is called.
func (c *collector) serveHTTP(t *testing.T, l net.Listener) (stop func()) {
	srv := &http.Server{Handler: c}
	return serve(t, func() { _ = srv.Serve(l) }, func() { srv.Close() })
}

func (c *collector) serveGRPC(t *testing.T, l net.Listener, opts ...grpc.ServerOption) (stop func()) {
	srv := grpc.NewServer(opts...)
	coltracepb.RegisterTraceServiceServer(srv, c)
	return serve(t, func() { _ = srv.Serve(l) }, srv.Stop)
}

func serve(t *testing.T, run, end func()) (stop func()) {
	done := make(chan struct{})
	go func() { run(); close(done) }()
	stop = sync.OnceFunc(func() { end(); <-done })
	t.Cleanup(stop)
	return stop
}
