package doctor

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
)

// TestSend: the test span arrives as the finding says.
func TestSend(t *testing.T) {
	var got coltracepb.ExportTraceServiceRequest
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := proto.Unmarshal(body, &got); err != nil {
			t.Error(err)
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer s.Close()
	e := config.Default().Export
	e.Compression = "none"
	if err := e.SetEndpoint(s.URL); err != nil {
		t.Fatal(err)
	}
	found := send(t.Context(), e.Target)
	if len(found) != 1 || found[0].Level != OK {
		t.Fatalf("found %+v", found)
	}
	if name := got.ResourceSpans[0].ScopeSpans[0].Spans[0].Name; name != testSpan {
		t.Errorf("it sent %q", name)
	}
}

// TestReadBack: what a backend has is told from what it has not, and from no backend.
func TestReadBack(t *testing.T) {
	asked := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// It indexes late.
		if asked++; asked < 3 || !strings.HasSuffix(r.URL.Path, "/api/v2/trace/abc") {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer s.Close()
	zipkin := config.Target{Protocol: "zipkin", Endpoint: s.URL + "/base"}
	if got := readBack(t.Context(), zipkin, "abc"); len(got) != 1 || got[0].Level != OK || got[0].What != "Zipkin has the test span" {
		t.Errorf("found %+v", got)
	}
	jaeger := backend{"Jaeger", s.URL + "/api/v2/trace/"}
	if got := jaeger.has(t.Context(), "abc"); len(got) != 1 || got[0].What != "Jaeger has the test span" {
		t.Errorf("found %+v", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if got := jaeger.has(ctx, "xyz"); len(got) > 1 || len(got) == 1 && got[0].Level != Warning {
		t.Errorf("found %+v", got)
	}
	s.Close()
	if got := readBack(t.Context(), zipkin, "abc"); got != nil {
		t.Errorf("found %+v without a Zipkin", got)
	}
}
