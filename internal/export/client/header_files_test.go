package client

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// TestHeaderFiles: a secret in a file is sent, also after it has changed, and no message
// shows it. A file that is missing for a while loses nothing.
func TestHeaderFiles(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc", "zipkin"} {
		t.Run(protocol, func(t *testing.T) {
			var seen []string
			l := listen(t, "127.0.0.1:0")
			c := &collector{}
			switch protocol {
			case "grpc":
				c.serveGRPC(t, l, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
					md, _ := metadata.FromIncomingContext(ctx)
					seen = append(seen, md.Get("authorization")...)
					return handle(ctx, req)
				}))
			default:
				serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
					seen = append(seen, r.Header.Get("Authorization"))
					if protocol == "zipkin" {
						w.WriteHeader(http.StatusAccepted)
						return
					}
					c.ServeHTTP(w, r)
				})
			}
			file := filepath.Join(t.TempDir(), "token")
			put := func(value string) {
				if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			put("Bearer first-secret")
			cfg := exportTo(l, protocol, "")
			cfg.HeaderFiles = map[string]string{"Authorization": file}
			client := newClient(t, cfg)
			upload := func() error { return client.UploadTraces(t.Context(), zipkinable(spans("a"))) }
			if err := upload(); err != nil {
				t.Fatal(err)
			}
			put("Bearer second-secret")
			if err := upload(); err != nil {
				t.Fatal(err)
			}
			put("a\nb-secret")
			var away *ship.AwayError
			if err := upload(); err == nil || strings.Contains(err.Error(), "secret") || !errors.As(err, &away) {
				t.Errorf("a line break: %v", err)
			}
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := upload(); err == nil || !strings.Contains(err.Error(), file) {
				t.Errorf("missing: %v", err)
			}
			if _, err := New(cfg); err == nil {
				t.Error("missing at the start")
			}
			if !slices.Equal(seen, []string{"Bearer first-secret", "Bearer second-secret"}) {
				t.Errorf("sent: %q", seen)
			}
		})
	}
}

// zipkinable gives spans what Zipkin demands.
func zipkinable(all []*tracepb.ResourceSpans) []*tracepb.ResourceSpans {
	for _, s := range all[0].ScopeSpans[0].Spans {
		s.TraceId, s.SpanId, s.StartTimeUnixNano = []byte("0123456789abcdef"), []byte("12345678"), 1e18
	}
	return all
}
