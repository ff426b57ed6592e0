package otlp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/export/ship"
)

func spans(names ...string) []*tracepb.ResourceSpans {
	ss := &tracepb.ScopeSpans{}
	for _, n := range names {
		ss.Spans = append(ss.Spans, &tracepb.Span{Name: n})
	}
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{ss}}}
}

func newClient(t *testing.T, cfg config.Export) otlptrace.Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop(context.Background()) })
	return c
}

// exportTo is the default configuration with the endpoint.
func exportTo(l net.Listener, protocol, path string) config.Export {
	cfg := config.Default().Export
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
			if err := newClient(t, cfg.Export).UploadTraces(t.Context(), spans("a")); err != nil {
				t.Fatal(err)
			}
			if c.headers["tenant"] != "env" || c.gzip {
				t.Errorf("headers %v, gzip %v", c.headers, c.gzip)
			}
		})
	}
}

// meaning is what the shipper makes of an error.
func meaning(err error) string {
	var rejected *ship.RejectedError
	var busy *ship.BusyError
	switch {
	case err == nil:
		return "taken"
	case errors.As(err, &rejected):
		return fmt.Sprintf("%s, %d spans, %d tries", rejected.Reason, rejected.Spans, rejected.Tries)
	case errors.As(err, &busy):
		return fmt.Sprintf("busy %v", busy.After)
	default:
		return "failed"
	}
}

func TestMeaningOfHTTPAnswers(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveHTTP(t, l)
	client := newClient(t, exportTo(l, "http/protobuf", ""))
	const never = "%s, -1 spans, 0 tries"
	doubtful := fmt.Sprintf("%s, -1 spans, %d tries", ReasonFailing, manyTries)
	for code, want := range map[int]string{
		301: "failed", 307: "failed",
		400: fmt.Sprintf(never, ReasonRefused), 415: fmt.Sprintf(never, ReasonRefused), 422: fmt.Sprintf(never, ReasonRefused),
		413: fmt.Sprintf(never, ReasonTooLarge),
		401: "failed", 403: "failed", 404: "failed", 405: "failed", 408: "failed",
		429: "busy 7s", 502: "busy 7s", 503: "busy 7s", 504: "busy 7s",
		500: doubtful, 501: doubtful,
	} {
		c.fail = func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "7")
			http.Error(w, "no", code)
		}
		if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != want {
			t.Errorf("status %d: %s, want %s", code, got, want)
		}
	}
	c.fail = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != "failed" {
		t.Errorf("503 without Retry-After: %s", got)
	}
	c.fail, c.partial = nil, &coltracepb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "why"}
	if got := meaning(client.UploadTraces(t.Context(), spans("a", "b", "c"))); got != ReasonPartial+", 2 spans, 0 tries" {
		t.Errorf("partial success: %s", got)
	}
	c.partial = &coltracepb.ExportTracePartialSuccess{ErrorMessage: "a warning"}
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != "taken" {
		t.Errorf("warning: %s", got)
	}
	c.partial = nil
	if got := meaning(client.UploadTraces(t.Context(), spans("a"))); got != "taken" {
		t.Errorf("success: %s", got)
	}
}

func TestMeaningOfGRPCAnswers(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveGRPC(t, l)
	client := newClient(t, exportTo(l, "grpc", ""))
	doubtful := fmt.Sprintf("%s, -1 spans, %d tries", ReasonFailing, manyTries)
	withDelay, err := status.New(codes.ResourceExhausted, "slow down").
		WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(3 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		answer error
		want   string
	}{
		{status.Error(codes.InvalidArgument, "x"), ReasonRefused + ", -1 spans, 0 tries"},
		{status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5 vs. 4)"), ReasonTooLarge + ", -1 spans, 0 tries"},
		{status.Error(codes.ResourceExhausted, "quota"), "failed"},
		{withDelay.Err(), "busy 3s"},
		{status.Error(codes.Internal, "x"), doubtful},
		{status.Error(codes.Unavailable, "x"), "failed"},
		{status.Error(codes.Unauthenticated, "x"), "failed"},
		{status.Error(codes.Unimplemented, "x"), "failed"},
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
	c.partial = &coltracepb.ExportTracePartialSuccess{RejectedSpans: 2}
	if got := meaning(client.UploadTraces(t.Context(), spans("a", "b", "c"))); got != ReasonPartial+", 2 spans, 0 tries" {
		t.Errorf("partial success: %s", got)
	}
}

func TestUploadIsBounded(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0") // accepts in the kernel, never answers
			defer l.Close()
			cfg := exportTo(l, protocol, "")
			cfg.Timeout = config.Duration(50 * time.Millisecond)
			if got := meaning(newClient(t, cfg).UploadTraces(t.Context(), spans("a"))); got != "failed" {
				t.Errorf("hanging collector: %s", got)
			}
		})
	}
}

func TestTLSFromEnvironment(t *testing.T) {
	cert, file := selfSigned(t)
	l := listen(t, "127.0.0.1:0")
	c := &collector{}
	c.serveTLS(t, l, cert)
	cfg := exportTo(l, "http/protobuf", "")
	cfg.Endpoint = "https://" + l.Addr().String()
	if got := meaning(newClient(t, cfg).UploadTraces(t.Context(), spans("a"))); got != "failed" {
		t.Errorf("unknown authority: %s", got)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	if err := newClient(t, cfg).UploadTraces(t.Context(), spans("a")); err != nil {
		t.Error(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file+".missing")
	if _, err := NewClient(cfg); err == nil {
		t.Error("a missing certificate is no error")
	}
}

func selfSigned(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// TestOutages ships a journal to a collector that is not there, goes away in the
// middle and refuses for a while: every span arrives.
func TestOutages(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			l := listen(t, "127.0.0.1:0")
			address := l.Addr().String()
			cfg := exportTo(l, protocol, "")
			l.Close() // nobody is there yet
			j, err := journal.Open(t.TempDir(), journal.Options{Shipped: true})
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			client, err := NewClient(cfg)
			if err != nil {
				t.Fatal(err)
			}
			attempts := make(chan error, 1000)
			s := &ship.Shipper{
				Dir: j.Dir(), Client: client, Drops: j,
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
					if err := j.UploadTraces(t.Context(), spans(fmt.Sprint(total))); err != nil {
						t.Fatal(err)
					}
					total++
				}
			}
			arrived := func() {
				t.Helper()
				eventually(t, "everything arrives", func() bool { return c.taken() >= total })
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

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
