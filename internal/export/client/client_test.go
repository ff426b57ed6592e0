package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func spans(names ...string) []*tracepb.ResourceSpans {
	ss := &tracepb.ScopeSpans{}
	for _, n := range names {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: n})
	}
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{ss}}}
}

func newClient(t *testing.T, cfg config.Target) otlptrace.Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c
}

// exportTo returns the default configuration with the endpoint.
func exportTo(l net.Listener, protocol, path string) config.Target {
	cfg := config.Default().Export.Target
	cfg.Endpoint, cfg.Protocol = "http://"+l.Addr().String()+path, protocol
	return cfg
}

func TestUploadHTTP(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveHTTP(t, l)
	cfg := exportTo(l, "http/protobuf", "/base")
	cfg.Headers = map[string]string{"tenant": "file"}
	if err := newClient(t, cfg).UploadTraces(t.Context(), spans("a", "b")); err != nil {
		t.Fatal(err)
	}
	if c.path != "/base/v1/traces" || c.headers["tenant"] != "file" || !c.gzip || len(c.names) != 2 {
		t.Errorf("path %s, headers %v, gzip %v, spans %v", c.path, c.headers, c.gzip, c.names)
	}
}

func TestUploadGRPC(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveGRPC(t, l)
	cfg := exportTo(l, "grpc", "")
	cfg.Headers = map[string]string{"tenant": "file"}
	if err := newClient(t, cfg).UploadTraces(t.Context(), spans("a", "b")); err != nil {
		t.Fatal(err)
	}
	if c.headers["tenant"] != "file" || len(c.names) != 2 {
		t.Errorf("headers %v, spans %v", c.headers, c.names)
	}
}

func TestEnvironmentComesFirst(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			c := &collector{}
			if protocol == "grpc" {
				c.serveGRPC(t, l)
			} else {
				c.serveHTTP(t, l)
			}
			file := filepath.Join(t.TempDir(), "config.toml")
			text := "[export]\nendpoint = \"http://127.0.0.1:1\"\nheaders = { tenant = \"file\" }\nprotocol = \"" + protocol + "\"\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(config.PathEnv, file)
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "tenant=env, nonsense")
			t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", " None ")
			t.Setenv("OTEL_EXPORTER_OTLP_INSECURE", "nonsense")
			cfg, _ := config.Load("", os.Getenv)
			if err := newClient(t, cfg.Export.Target).UploadTraces(t.Context(), spans("a")); err != nil {
				t.Fatal(err)
			}
			if c.headers["tenant"] != "env" || c.gzip {
				t.Errorf("headers %v, gzip %v", c.headers, c.gzip)
			}
		})
	}
}

// meaning is how the shipper interprets an error.
func meaning(err error) string {
	var rejected *ship.RejectedError
	var busy *ship.BusyError
	var taken *ship.TakenError
	var away *ship.AwayError
	switch {
	case err == nil:
		return "taken"
	case errors.As(err, &taken):
		_, message, _ := strings.Cut(taken.Message, "warns: ")
		return "taken: " + message
	case errors.As(err, &away):
		return "away"
	case errors.As(err, &rejected):
		return fmt.Sprintf("%s, %d spans, %d tries", rejected.Reason, rejected.Spans, rejected.Tries)
	case errors.As(err, &busy):
		return fmt.Sprintf("busy %v", busy.After)
	default:
		return "failed"
	}
}

// The meanings that meaning distinguishes.
const (
	isRefused  = "collector_refused, -1 spans, 0 tries"
	isTooLarge = "collector_too_large, -1 spans, 0 tries"
	inDoubt    = "collector_fails, -1 spans, 20 tries"
	isLarge    = "collector_too_large, -1 spans, 20 tries"
)

func TestMeaningOfHTTPAnswers(t *testing.T) {
	partial, err := proto.Marshal(&coltracepb.ExportTraceServiceResponse{
		PartialSuccess: &coltracepb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "why"}})
	if err != nil {
		t.Fatal(err)
	}
	failure, err := proto.Marshal(&spb.Status{Message: "invalid span"})
	if err != nil {
		t.Fatal(err)
	}
	large, err := proto.Marshal(&spb.Status{Code: 3, Message: "http: request body too large"})
	if err != nil {
		t.Fatal(err)
	}
	const (
		protobuf = "application/x-protobuf"
		json     = "application/json"
		page     = "<html><head><title>502 Bad\nGateway</title></head><body>nginx</body></html>"
		elastic  = `{"error":{"type":"illegal_argument_exception","reason":"request [/v1/traces] contains unrecognized"},"status":400}`
	)
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveHTTP(t, l)
	cfg := exportTo(l, "http/protobuf", "")
	cfg.Compression = "none"
	client := newClient(t, cfg)
	for _, tt := range []struct {
		code       int
		kind, body string
		want       string
	}{
		// Successes: of the right type, of another, and of none.
		{200, protobuf, "", "taken"},
		{200, "application/protobuf", "", "taken"},
		{200, json, "{}", "taken"},
		{200, json, "", "taken"},
		{200, "", "", "taken"},                            // Grafana Mimir
		{201, "", "", "taken"},                            // Fluent Bit
		{204, "", "", "taken"},                            // Fluent Bit
		{200, "text/plain; charset=utf-8", "{}", "taken"}, // Go's guess for JSON
		{200, "application/json; charset=utf-8", `{"partialSuccess":{}}`, "taken"}, // the OpenTelemetry Collector's
		{200, json, `{"partialSuccess":{"errorMessage":"a warning"}}`, "taken: a warning"},
		{200, json, `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"why"}}`, "collector_refused_some, 2 spans, 0 tries"},
		{200, json, `{"partial_success":{"rejected_spans":2},"later":1}`, "collector_refused_some, 2 spans, 0 tries"},
		{200, json, string(partial), "collector_refused_some, 2 spans, 0 tries"},
		{200, protobuf, string(partial), "collector_refused_some, 2 spans, 0 tries"},
		{200, protobuf, `{"partialSuccess":{"rejectedSpans":2}}`, "collector_refused_some, 2 spans, 0 tries"},
		{200, "application/octet-stream", string(partial), "collector_refused_some, 2 spans, 0 tries"},
		{200, "", string(partial), "collector_refused_some, 2 spans, 0 tries"},
		{200, json, `{"partialSuccess":{"rejectedSpans":99}}`, "collector_refused_some, 3 spans, 0 tries"},
		{200, json, `{"partialSuccess":{"rejectedSpans":-5}}`, "taken"},
		// Answers that are not OTLP.
		{200, "text/html", page, inDoubt},
		{200, "text/html; charset=UTF-8", "", inDoubt},
		{200, "text/plain", "OK", inDoubt},
		{200, "text/plain", "", inDoubt},
		{200, "application/octet-stream", "", inDoubt},
		{200, json, `{"status":"ok"}`, inDoubt},
		{200, json, `{"partialSuccess":7}`, inDoubt},
		{200, json, `[]`, inDoubt},
		{200, protobuf, page, inDoubt},
		{200, "nonsense/;;", "?", inDoubt},
		{301, "text/html", page, inDoubt},
		{307, "", "", inDoubt},
		// Refusals, by OTLP and by others.
		{400, protobuf, string(failure), isRefused},
		{400, protobuf, "", isRefused},
		{400, json, `{"code":3,"message":"invalid span"}`, isRefused},
		{400, "application/octet-stream", string(failure), isRefused}, // Grafana Mimir
		{400, "", string(failure), isRefused},
		{422, protobuf, string(failure), isRefused},
		{400, protobuf, string(large), isTooLarge}, // the OpenTelemetry Collector
		{413, protobuf, string(large), isTooLarge},
		{413, protobuf, "", isTooLarge},
		{413, "text/html", page, isLarge},
		{413, "", "", isLarge},
		{400, "text/html", page, inDoubt},
		{400, json, elastic, inDoubt},
		{400, json, `{"code":400,"message":"Bad Request"}`, inDoubt},
		{400, json, `{"message":"no Route matched with those values"}`, inDoubt}, // Kong
		{400, "text/plain", "Client sent an HTTP request to an HTTPS server.\n", inDoubt},
		{400, protobuf, page, inDoubt},
		{415, "text/plain", "unsupported media type", inDoubt},
		{415, protobuf, string(failure), inDoubt},
		{422, json, `{"detail":[]}`, inDoubt},
		{401, protobuf, string(failure), inDoubt},
		{403, "text/html", page, inDoubt},
		{404, "text/html", page, inDoubt},
		{405, "", "", inDoubt},
		{407, "text/html", page, inDoubt},
		// What may pass.
		{408, "", "", "busy 7s"}, {429, protobuf, string(failure), "busy 7s"},
		{502, "text/html", page, "busy 7s"}, {503, "", "", "busy 7s"}, {504, "", "", "busy 7s"},
		{500, protobuf, string(failure), inDoubt}, {500, "text/html", page, inDoubt}, {501, "", "", inDoubt}, {599, "", "", inDoubt},
	} {
		c.fail = func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "7")
			w.Header()["Content-Type"] = nil
			if tt.kind != "" {
				w.Header().Set("Content-Type", tt.kind)
			}
			w.WriteHeader(tt.code)
			_, _ = io.WriteString(w, tt.body)
		}
		if got := meaning(client.UploadTraces(t.Context(), spans("a", "b", "c"))); got != tt.want {
			t.Errorf("status %d, type %q, body %.40q: %s, want %s", tt.code, tt.kind, tt.body, got, tt.want)
		}
	}
	for after, want := range map[string]string{"": "failed", "-1": "failed", "nonsense": "failed", "0": "failed", " 3 ": "busy 3s", "Thu, 01 Jan 1970 00:00:00 GMT": "failed"} {
		c.fail = func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != want {
			t.Errorf("503 with Retry-After %q: %s, want %s", after, got, want)
		}
	}
	c.fail = nil
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != "taken" {
		t.Errorf("success: %s", got)
	}
}

func TestMeaningOfGRPCAnswers(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveGRPC(t, l)
	client := newClient(t, exportTo(l, "grpc", ""))
	withDelay, err := status.New(codes.ResourceExhausted, "slow down").
		WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		answer error
		want   string
	}{
		{status.Error(codes.InvalidArgument, "x"), isRefused},
		// Size limits in the words of libraries: Go, Go again, Java, .NET, Node, C++,
		// Rust.
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), isTooLarge},
		{status.Error(codes.ResourceExhausted, "grpc: received message after decompression larger than max 4194304"), isTooLarge},
		{status.Error(codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"), isTooLarge},
		{status.Error(codes.ResourceExhausted, "Received message exceeds the maximum configured message size."), isTooLarge},
		{status.Error(codes.ResourceExhausted, "Received message larger than max (5000000 vs 4194304)"), isTooLarge},
		{status.Error(codes.ResourceExhausted, "SERVER: Received message larger than max (5 vs. 4)"), isTooLarge},
		{status.Error(codes.OutOfRange, "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes"), isTooLarge},
		{status.Error(codes.ResourceExhausted, "quota"), "failed"},
		{withDelay.Err(), "busy 3s"},
		{status.Error(codes.Internal, "x"), inDoubt},
		{status.Error(codes.Unknown, "x"), inDoubt},
		{status.Error(codes.Code(99), "x"), inDoubt},
		{status.Error(codes.Unavailable, "x"), "failed"},
		{status.Error(codes.DeadlineExceeded, "x"), "failed"},
		{status.Error(codes.Unauthenticated, "x"), inDoubt},
		{status.Error(codes.PermissionDenied, "x"), inDoubt},
		{status.Error(codes.Unimplemented, "x"), inDoubt},
		{nil, "taken"},
	} {
		c.failRPC = func() error { return tc.answer }
		if tc.answer == nil {
			c.failRPC = nil
		}
		if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.answer, got, tc.want)
		}
	}
	for _, tc := range []struct {
		partial *coltracepb.ExportTracePartialSuccess
		want    string
	}{
		{&coltracepb.ExportTracePartialSuccess{RejectedSpans: 2}, "collector_refused_some, 2 spans, 0 tries"},
		{&coltracepb.ExportTracePartialSuccess{RejectedSpans: 1 << 40}, "collector_refused_some, 3 spans, 0 tries"},
		{&coltracepb.ExportTracePartialSuccess{RejectedSpans: -1 << 40}, "taken"},
		{&coltracepb.ExportTracePartialSuccess{ErrorMessage: "a warning"}, "taken: a warning"},
		{&coltracepb.ExportTracePartialSuccess{}, "taken"},
	} {
		c.partial = tc.partial
		if got := meaning(client.UploadTraces(t.Context(), spans("a", "b", "c"))); got != tc.want {
			t.Errorf("partial success %v: %s, want %s", tc.partial, got, tc.want)
		}
	}
}

func TestUploadIsBounded(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			for wait := 50 * time.Millisecond; ; wait *= 2 {
				l := listen(t, "127.0.0.1:0")
				asked := neverAnswers(t, l)
				cfg := exportTo(l, protocol, "")
				cfg.Timeout = config.Duration(wait)
				got := meaning(newClient(t, cfg).UploadTraces(t.Context(), spans("a")))
				if !asked.Load() {
					continue // a busy machine has not even connected in that time
				}
				if got != inDoubt {
					t.Errorf("hanging collector: %s", got)
				}
				break
			}
		})
	}
}

// neverAnswers accepts and reads. It says whether anything has come.
func neverAnswers(t *testing.T, l net.Listener) (asked *atomic.Bool) {
	asked = new(atomic.Bool)
	var conns sync.WaitGroup
	serve(t, func() {
		defer conns.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer c.Close()
				for b := make([]byte, 1<<10); ; asked.Store(true) {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			})
		}
	}, func() { l.Close() })
	return asked
}

// TestOutages ships a journal to a collector that is absent at first, goes away in the
// middle and refuses for a while: every span arrives.
func TestOutages(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			address := testkit.FreePort(t) // nobody is there yet
			cfg := config.Default().Export.Target
			cfg.Endpoint, cfg.Protocol = "http://"+address, protocol
			j, err := journal.Open(t.TempDir(), journal.Options{Shipped: true})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			client, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			attempts := make(chan error, 1000)
			s := &ship.Shipper{
				Dir: j.Dir(), Client: client, Journal: j,
				Linger: time.Millisecond, MinBackoff: time.Millisecond, MaxBackoff: 50 * time.Millisecond,
				Progress: func(st ship.Status) {
					if st.Err != nil {
						select {
						case attempts <- st.Err:
						default:
						}
					}
				},
			}
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- s.Run(ctx) }()

			c := &collector{}
			serve := func() (stop func()) {
				l := listen(t, address)
				if protocol == "grpc" {
					return c.serveGRPC(t, l)
				}
				return c.serveHTTP(t, l)
			}
			total := 0
			append := func() {
				for range 20 {
					if err := journaltest.Append(j, spans(fmt.Sprint(total))); err != nil {
						t.Fatal(err)
					}
					total++
				}
			}
			arrived := func() {
				t.Helper()
				eventually(t, "everything arrives", func() bool { return c.distinct() >= total })
			}

			append()
			<-attempts
			stop := serve()
			arrived()

			stop()
			append()
			<-attempts
			serve()
			arrived()

			c.mu.Lock()
			c.fail = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
			c.failRPC = func() error { return status.Error(codes.Unavailable, "later") }
			c.mu.Unlock()
			before := c.tried()
			append()
			eventually(t, "three attempts", func() bool { return c.tried() >= before+3 })
			c.mu.Lock()
			c.fail, c.failRPC = nil, nil
			c.mu.Unlock()
			arrived()

			cancel()
			if err := <-result; err != nil {
				t.Error(err)
			}
			seen := make(map[string]bool)
			for _, n := range c.names {
				seen[n] = true
			}
			if len(seen) != total {
				t.Errorf("%d spans of %d", len(seen), total)
			}
		})
	}
}

var eventually = testkit.Until
