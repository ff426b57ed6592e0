package client

import (
	"compress/gzip"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
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

// meters takes a collector's metrics, over gRPC.
type meters struct {
	colmetricspb.UnimplementedMetricsServiceServer
	of *collector
}

// Export implements [colmetricspb.MetricsServiceServer].
func (m *meters) Export(_ context.Context, req *colmetricspb.ExportMetricsServiceRequest) (*colmetricspb.ExportMetricsServiceResponse, error) {
	m.of.mu.Lock()
	m.of.attempts++
	fail := m.of.failRPC
	m.of.mu.Unlock()
	if fail != nil {
		return nil, fail()
	}
	return m.of.takeMetrics(req), nil
}

// takeMetrics takes the names of metrics like those of spans.
func (c *collector) takeMetrics(req *colmetricspb.ExportMetricsServiceRequest) *colmetricspb.ExportMetricsServiceResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rm := range req.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				c.names = append(c.names, m.Name)
			}
		}
	}
	return new(colmetricspb.ExportMetricsServiceResponse)
}

// readBody reads the body of a request, and says whether it was compressed.
func readBody(r *http.Request) (body []byte, zipped bool, err error) {
	if zipped = r.Header.Get("Content-Encoding") == "gzip"; !zipped {
		body, err = io.ReadAll(r.Body)
		return body, zipped, err
	}
	z, err := gzip.NewReader(r.Body)
	if err == nil {
		body, err = io.ReadAll(z)
	}
	return body, zipped, err
}

func (c *collector) serveMetrics(w http.ResponseWriter, r *http.Request) {
	body, _, err := readBody(r)
	req := new(colmetricspb.ExportMetricsServiceRequest)
	if err != nil || proto.Unmarshal(body, req) != nil {
		http.Error(w, "no OTLP", http.StatusBadRequest)
		return
	}
	answer, _ := proto.Marshal(c.takeMetrics(req))
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(answer)
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/v1/metrics") || r.URL.Path == "/m" {
		c.serveMetrics(w, r)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attempts++
	c.path, c.headers = r.URL.Path, map[string]string{"tenant": r.Header.Get("tenant")}
	b, zipped, err := readBody(r)
	c.gzip = zipped
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
	colmetricspb.RegisterMetricsServiceServer(srv, &meters{of: c})
	return serve(t, func() { _ = srv.Serve(l) }, srv.Stop)
}

func serve(t *testing.T, run, end func()) (stop func()) {
	done := make(chan struct{})
	go func() { run(); close(done) }()
	stop = sync.OnceFunc(func() { end(); <-done })
	t.Cleanup(stop)
	return stop
}
