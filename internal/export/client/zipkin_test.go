package client

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openzipkin/zipkin-go/model"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

func attribute(key string, value *commonpb.AnyValue) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: value}
}

func text(s string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: s}}
}

func number(n int64) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: n}}
}

// TestZipkinSpan: each row of the specification's table.
func TestZipkinSpan(t *testing.T) {
	const begin = uint64(1_700_000_000_000_000_000)
	trace, id, parent := []byte("0123456789abcdef"), []byte("12345678"), []byte("87654321")
	sent := []*tracepb.ResourceSpans{{
		Resource: &resourcepb.Resource{Attributes: []*commonpb.KeyValue{attribute("service.name", text("shim")), attribute("host.name", text("h"))}},
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "scope", Version: "1"},
			Spans: []*tracepb.Span{
				{
					TraceId: trace, SpanId: id, ParentSpanId: parent, Name: "Create", Kind: tracepb.Span_SPAN_KIND_SERVER,
					StartTimeUnixNano: begin, EndTimeUnixNano: begin + 1_500_000,
					Attributes: []*commonpb.KeyValue{attribute("n", number(7)), attribute("error", text("false")),
						attribute("list", &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{text("a"), number(1)}}}})},
					Events: []*tracepb.Span_Event{
						{TimeUnixNano: begin + 1000, Name: "plain"},
						{TimeUnixNano: begin + 2000, Name: "rich", Attributes: []*commonpb.KeyValue{attribute("k", number(2))}},
					},
					Links:  []*tracepb.Span_Link{{TraceId: trace, SpanId: parent}},
					Status: &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "why"},
				},
				{TraceId: trace, SpanId: parent, Name: "no time", StartTimeUnixNano: begin, EndTimeUnixNano: begin},
				{TraceId: trace, SpanId: make([]byte, 8), Name: "no id", StartTimeUnixNano: begin},
			},
		}},
	}}
	for _, compression := range []string{"gzip", "none"} {
		var got []model.SpanModel
		l := listen(t, "127.0.0.1:0")
		serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
			var body io.Reader = r.Body
			if r.Header.Get("Content-Encoding") == "gzip" {
				body, _ = gzip.NewReader(r.Body)
			}
			if r.URL.Path != "/api/v2/spans" || r.Header.Get("Content-Type") != "application/json" || json.NewDecoder(body).Decode(&got) != nil {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			w.WriteHeader(http.StatusAccepted)
		})
		cfg := exportTo(l, "zipkin", "")
		cfg.Compression = compression
		if err := newClient(t, cfg).UploadTraces(t.Context(), sent); meaning(err) != "collector_refused_some, 1 spans, 0 tries" {
			t.Errorf("%s: %v", meaning(err), err)
		}
		if len(got) != 2 {
			t.Fatalf("%d spans", len(got))
		}
		s := got[0]
		if s.TraceID.String() != "30313233343536373839616263646566" || s.ID.String() != "3132333435363738" || s.ParentID == nil || s.ParentID.String() != "3837363534333231" {
			t.Errorf("ids: %v", s.SpanContext)
		}
		if s.Name != "create" || s.Kind != model.Server || s.LocalEndpoint.ServiceName != "shim" || s.Timestamp.UnixNano() != int64(begin) || s.Duration != 1500*time.Microsecond {
			t.Errorf("%+v", s)
		}
		for key, want := range map[string]string{
			"host.name": "h", "otel.scope.name": "scope", "otel.scope.version": "1", "n": "7", "list": `["a",1]`,
			"otel.status_code": "ERROR", "error": "why", "otlp.link.0": "30313233343536373839616263646566|3837363534333231",
		} {
			if s.Tags[key] != want {
				t.Errorf("tag %s: %q, want %q", key, s.Tags[key], want)
			}
		}
		if len(s.Annotations) != 2 || s.Annotations[0].Value != "plain" || s.Annotations[1].Value != `{"rich":{"k":2}}` {
			t.Errorf("events: %v", s.Annotations)
		}
		if d := got[1].Duration; d != time.Microsecond {
			t.Errorf("a span without a duration has %s", d)
		}
		if _, failed := got[1].Tags["error"]; failed {
			t.Error("a span without a status has failed")
		}
	}
}

// TestZipkinAnswers: only Zipkin's own answer counts as success, and nothing that may
// pass loses spans.
func TestZipkinAnswers(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		want   string
	}{
		{202, "", "taken"},
		{200, "", inDoubt}, {204, "", inDoubt}, {200, "<title>welcome</title>", inDoubt}, {202, "ok", inDoubt},
		{302, "", inDoubt}, {404, "", inDoubt}, {400, "Cannot decode spans", inDoubt},
		{413, "too large", isTooLarge}, {415, "", inDoubt}, {503, "", "busy 7s"},
	} {
		l := listen(t, "127.0.0.1:0")
		serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
			if tt.status == 503 {
				w.Header().Set("Retry-After", "7")
			}
			w.WriteHeader(tt.status)
			_, _ = io.WriteString(w, tt.body)
		})
		sent := []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: []byte("0123456789abcdef"), SpanId: []byte("12345678"), StartTimeUnixNano: 1e18}}}}}}
		if err := newClient(t, exportTo(l, "zipkin", "")).UploadTraces(t.Context(), sent); meaning(err) != tt.want {
			t.Errorf("%d %q: %s (%v), want %s", tt.status, tt.body, meaning(err), err, tt.want)
		} else if err != nil && strings.Contains(err.Error(), "OTLP") {
			t.Errorf("%d: advice about another protocol: %v", tt.status, err)
		}
	}
}

// TestZipkinHeaders: the configured headers are sent, of the file and of files, and do not
// change what the body is said to be.
func TestZipkinHeaders(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte("b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(http.Header)
	l := listen(t, "127.0.0.1:0")
	serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		w.WriteHeader(http.StatusAccepted)
	})
	for _, compression := range []string{"gzip", "none"} {
		cfg := exportTo(l, "zipkin", "")
		cfg.Compression = compression
		cfg.Headers = map[string]string{"x-tenant": "a", "content-type": "text/plain"}
		cfg.HeaderFiles = map[string]string{"authorization": file}
		if err := newClient(t, cfg).UploadTraces(t.Context(), zipkinable(spans("a"))); err != nil {
			t.Error(err)
		}
		if got.Get("X-Tenant") != "a" || got.Get("Authorization") != "b" || got.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", compression, got)
		}
	}
}
