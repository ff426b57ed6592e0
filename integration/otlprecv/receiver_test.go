package otlprecv_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen; it is no expectation of how fast.
const patience = 20 * time.Second

func listen(t *testing.T, opts otlprecv.Options) *otlprecv.Receiver {
	t.Helper()
	recv, err := otlprecv.Listen(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := recv.Close(); err != nil {
			t.Error(err)
		}
	})
	return recv
}

// clients are the real ones, which do not retry unless told.
var clients = map[string]func(*otlprecv.Receiver) otlptrace.Client{
	"http": func(r *otlprecv.Receiver) otlptrace.Client {
		return otlptracehttp.NewClient(
			otlptracehttp.WithEndpointURL(r.Endpoint()+"/v1/traces"),
			otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
			otlptracehttp.WithHeaders(map[string]string{"X-Tenant": "a"}),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	},
	"grpc": func(r *otlprecv.Receiver) otlptrace.Client {
		return otlptracegrpc.NewClient(
			otlptracegrpc.WithEndpointURL(r.GRPCEndpoint()),
			otlptracegrpc.WithCompressor("gzip"),
			otlptracegrpc.WithHeaders(map[string]string{"X-Tenant": "a"}),
			otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{}))
	},
}

// each runs a test over both protocols; export sends one trace of two spans.
func each(t *testing.T, test func(t *testing.T, recv *otlprecv.Receiver, export func(context.Context) error)) {
	for protocol, client := range clients {
		t.Run(protocol, func(t *testing.T) {
			recv := listen(t, otlprecv.Options{})
			exporter, err := otlptrace.New(t.Context(), client(recv))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { exporter.Shutdown(context.Background()) })
			test(t, recv, func(ctx context.Context) error { return exporter.ExportSpans(ctx, twoSpans(t)) })
		})
	}
}

func twoSpans(t *testing.T) []sdktrace.ReadOnlySpan {
	record := new(recorder)
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSyncer(record),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "test"))))
	defer provider.Shutdown(context.Background())
	tracer := provider.Tracer("scope")
	ctx, parent := tracer.Start(t.Context(), "parent")
	_, child := tracer.Start(ctx, "child", trace.WithAttributes(
		attribute.Int("number", 7), attribute.StringSlice("list", []string{"a", "b"})))
	child.End()
	parent.End()
	return record.spans
}

type recorder struct{ spans []sdktrace.ReadOnlySpan }

func (r *recorder) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	r.spans = append(r.spans, spans...)
	return nil
}
func (r *recorder) Shutdown(context.Context) error { return nil }

func TestReceives(t *testing.T) {
	each(t, func(t *testing.T, recv *otlprecv.Receiver, export func(context.Context) error) {
		if err := export(t.Context()); err != nil {
			t.Fatal(err)
		}
		spans, err := recv.Wait(patience, func(s []otlprecv.Span) bool { return len(s) == 2 })
		if err != nil {
			t.Fatal(err)
		}
		parent, child := otlprecv.Named(spans, "parent")[0], otlprecv.Named(spans, "child")[0]
		if child.TraceID != parent.TraceID || child.ParentID != parent.ID || parent.ParentID != "" {
			t.Errorf("parent %s/%s, child's parent %s/%s", parent.TraceID, parent.ID, child.TraceID, child.ParentID)
		}
		if child.Service() != "test" || child.Scope != "scope" {
			t.Errorf("service %q, scope %q", child.Service(), child.Scope)
		}
		if list, _ := child.Attrs["list"].([]any); child.Attrs["number"] != int64(7) || len(list) != 2 || list[1] != "b" {
			t.Errorf("attributes %v", child.Attrs)
		}
		if child.End().Before(child.Start()) || child.Start().Before(parent.Start()) {
			t.Errorf("parent from %s, child from %s to %s", parent.Start(), child.Start(), child.End())
		}
		if got := recv.Requests()[0].Header["x-tenant"]; len(got) != 1 || got[0] != "a" {
			t.Errorf("header x-tenant %q, want a", got)
		}
	})
}

func TestFaults(t *testing.T) {
	each(t, func(t *testing.T, recv *otlprecv.Receiver, export func(context.Context) error) {
		recv.Fail(otlprecv.Fault{
			Status: http.StatusServiceUnavailable, Code: codes.Unavailable,
			RetryAfter: 3 * time.Second, Message: "try later", Times: 2,
		})
		for range 2 {
			if err := export(t.Context()); err == nil {
				t.Error("export met no fault")
			}
		}
		if n := len(recv.Requests()); n != 0 {
			t.Errorf("%d requests accepted during the fault", n)
		}
		if err := export(t.Context()); err != nil {
			t.Errorf("export after two faults: %v", err)
		}
		if got := recv.Attempts(); got != 3 {
			t.Errorf("%d attempts, want 3", got)
		}

		recv.Reset()
		recv.Fail(otlprecv.Fault{Rejected: 1, Message: "one too many"})
		if err := export(t.Context()); err == nil {
			t.Error("partial success was not reported")
		}
		if n := len(recv.Spans()); n != 2 {
			t.Errorf("%d spans kept of a partial success, want 2", n)
		}
	})
}

func TestHangEndsWithClient(t *testing.T) {
	each(t, func(t *testing.T, recv *otlprecv.Receiver, export func(context.Context) error) {
		recv.Fail(otlprecv.Fault{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- export(ctx) }()
		for recv.Attempts() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; err == nil {
			t.Error("export to a hanging receiver succeeded")
		}
	})
}

func TestHangEndsWithReceiver(t *testing.T) {
	each(t, func(t *testing.T, recv *otlprecv.Receiver, export func(context.Context) error) {
		recv.Fail(otlprecv.Fault{Hang: true})
		done := make(chan error)
		go func() { done <- export(t.Context()) }()
		for recv.Attempts() == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := recv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("export to a closed receiver succeeded")
		}
	})
}

func TestComesBackAtTheSameAddress(t *testing.T) {
	first := listen(t, otlprecv.Options{HTTPAddr: testkit.FreePort(t)})
	addr := first.Endpoint()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := listen(t, otlprecv.Options{HTTPAddr: addr[len("http://"):]})
	if second.Endpoint() != addr {
		t.Errorf("endpoint %s, want %s", second.Endpoint(), addr)
	}
}

func TestWaitTimesOut(t *testing.T) {
	recv := listen(t, otlprecv.Options{})
	_, err := recv.Wait(time.Millisecond, func([]otlprecv.Span) bool { return false })
	if !errors.Is(err, otlprecv.ErrTimeout) {
		t.Errorf("error %v, want %v", err, otlprecv.ErrTimeout)
	}
}

func TestRefusesWhatIsNotOTLP(t *testing.T) {
	recv := listen(t, otlprecv.Options{})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, tt := range []struct {
		name, contentType, encoding, body string
		want                              int
	}{
		{"json", "application/json", "", "{}", http.StatusUnsupportedMediaType},
		{"zstd", "application/x-protobuf", "zstd", "", http.StatusUnsupportedMediaType},
		{"not gzip", "application/x-protobuf", "gzip", "plain text", http.StatusBadRequest},
		{"not protobuf", "application/x-protobuf", "", "\xff\xff", http.StatusBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, recv.Endpoint()+"/v1/traces", bytes.NewBufferString(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tt.contentType)
			req.Header.Set("Content-Encoding", tt.encoding)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("status %d, want %d", res.StatusCode, tt.want)
			}
		})
	}
	if n := len(recv.Requests()); n != 0 {
		t.Errorf("%d requests accepted", n)
	}
}
