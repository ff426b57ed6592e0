// Package otlprecv is an OTLP trace receiver for tests: it takes spans over
// HTTP and gRPC as a collector does, keeps all of them, and misbehaves on
// request (see [Fault]).
//
// It speaks the real services of go.opentelemetry.io/proto/otlp, so what it
// accepts a collector accepts. It keeps everything in memory and passes
// nothing on: a run of it is one test. Shims under test run in a network
// namespace of their own, where this machine's loopback does not reach: listen
// there with [Options.NetNS]. All ports are free there, so the well-known ones
// can be in the shims' environment before there is a receiver:
//
//	r := rig.Start(t, rig.Options{Env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}})
//	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: r.NetNS(), HTTPAddr: "127.0.0.1:4318"})
//	...
//	spans, err := recv.Wait(10*time.Second, func(spans []otlprecv.Span) bool {
//		return len(otlprecv.Named(spans, "containerd.task.v3.Task/Start")) == 1
//	})
package otlprecv

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	metrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// maxRequest bounds one request, as collectors do.
const maxRequest = 64 << 20

// Options say where a receiver listens. The zero value is two free ports of
// 127.0.0.1.
type Options struct {
	HTTPAddr string // 127.0.0.1:0 if empty
	GRPCAddr string // 127.0.0.1:0 if empty
	// NetNS is the path of the network namespace to listen in; this process's
	// own if empty. It needs CAP_SYS_ADMIN.
	NetNS string
}

// A Request is one export that was accepted.
type Request struct {
	Protocol string              // "http" or "grpc"
	Header   map[string][]string // keys in lower case
	Body     *collector.ExportTraceServiceRequest
}

// A Receiver receives until Close. Its methods may be called concurrently.
type Receiver struct {
	httpListener, grpcListener net.Listener
	http                       *http.Server
	grpc                       *grpc.Server
	serving                    sync.WaitGroup
	closed                     chan struct{} // ends hanging requests

	mu       sync.Mutex
	requests []Request
	metrics  []*metrics.ExportMetricsServiceRequest
	attempts int
	fault    Fault
	changed  chan struct{} // closed and replaced when a request is accepted
}

// Listen starts a receiver. It is ready when Listen returns.
func Listen(opts Options) (*Receiver, error) {
	r := &Receiver{closed: make(chan struct{}), changed: make(chan struct{})}
	var err error
	if r.httpListener, err = ListenTCP(opts.NetNS, opts.HTTPAddr); err != nil {
		return nil, fmt.Errorf("listen for OTLP over HTTP: %w", err)
	}
	if r.grpcListener, err = ListenTCP(opts.NetNS, opts.GRPCAddr); err != nil {
		r.httpListener.Close()
		return nil, fmt.Errorf("listen for OTLP over gRPC: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", r.serveHTTP)
	mux.HandleFunc("POST /v1/metrics", r.serveMetrics)
	r.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	r.grpc = grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest))
	collector.RegisterTraceServiceServer(r.grpc, &grpcService{receiver: r})
	r.serving.Go(func() { r.http.Serve(r.httpListener) })
	r.serving.Go(func() { r.grpc.Serve(r.grpcListener) })
	return r, nil
}

// Endpoint is the base URL for OTLP over HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT
// wants it: http://127.0.0.1:4318.
func (r *Receiver) Endpoint() string { return "http://" + r.httpListener.Addr().String() }

// GRPCEndpoint is the same for OTLP over gRPC.
func (r *Receiver) GRPCEndpoint() string { return "http://" + r.grpcListener.Addr().String() }

// Close ends both servers and all requests in them. What was received can
// still be read. To come back, call Listen with the same addresses.
func (r *Receiver) Close() error {
	r.mu.Lock()
	select {
	case <-r.closed:
	default:
		close(r.closed)
	}
	r.mu.Unlock()
	err := r.http.Close()
	r.grpc.Stop()
	r.serving.Wait()
	return err
}

// Requests returns the accepted requests in the order of their arrival.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// Attempts counts all requests, those that met a fault too.
func (r *Receiver) Attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts
}

// Spans returns the accepted spans in the order of their arrival.
func (r *Receiver) Spans() []Span {
	return flatten(r.Requests())
}

// Reset forgets what was received so far.
func (r *Receiver) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests, r.attempts = nil, 0
}

// ErrTimeout is Wait's error when the condition was not met in time.
var ErrTimeout = errors.New("spans not received in time")

// Wait waits until the accepted spans meet the condition, which it calls
// whenever more have arrived. It returns the spans either way, and after the
// timeout an ErrTimeout that lists their names.
func (r *Receiver) Wait(timeout time.Duration, condition func([]Span) bool) ([]Span, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		spans := r.Spans()
		if condition(spans) {
			return spans, nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return spans, fmt.Errorf("%w: %s passed, %d spans: %q", ErrTimeout, timeout, len(spans), names(spans))
		}
	}
}

// accept stores a request and wakes those who wait.
func (r *Receiver) accept(req Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, req)
	close(r.changed)
	r.changed = make(chan struct{})
}
