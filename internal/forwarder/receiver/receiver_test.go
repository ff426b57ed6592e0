package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestExporters: OpenTelemetry's own exporters deliver, over all that they can speak.
func TestExporters(t *testing.T) {
	const patience = testkit.Patience
	path := filepath.Join(t.TempDir(), "otlp.sock")
	var sink taken
	r, at := serving(t, sink.take, Options{TakeTimeout: patience, ReadTimeout: patience}) // nothing is sent again
	l, err := ListenUnix(path, nil, &r.opts.Counters.Strangers)
	check(t, err)
	serve(t, r, l)
	for name, client := range map[string]otlptrace.Client{
		"gRPC":            otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(at), otlptracegrpc.WithInsecure(), otlptracegrpc.WithTimeout(patience)),
		"gRPC, gzip":      otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint(at), otlptracegrpc.WithInsecure(), otlptracegrpc.WithTimeout(patience), otlptracegrpc.WithCompressor("gzip")),
		"gRPC over Unix":  otlptracegrpc.NewClient(otlptracegrpc.WithEndpoint("unix://"+path), otlptracegrpc.WithInsecure(), otlptracegrpc.WithTimeout(patience)),
		"HTTP":            otlptracehttp.NewClient(otlptracehttp.WithEndpoint(at), otlptracehttp.WithInsecure(), otlptracehttp.WithTimeout(patience)),
		"HTTP, gzip":      otlptracehttp.NewClient(otlptracehttp.WithEndpoint(at), otlptracehttp.WithInsecure(), otlptracehttp.WithTimeout(patience), otlptracehttp.WithCompression(otlptracehttp.GzipCompression)),
		"HTTP, large too": otlptracehttp.NewClient(otlptracehttp.WithEndpoint(at), otlptracehttp.WithInsecure(), otlptracehttp.WithTimeout(patience)),
	} {
		sink.posts, sink.data = nil, nil
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		check(t, client.Start(ctx))
		n := 3
		if strings.Contains(name, "large") {
			n = 8000 // some MB
		}
		sent := spansOf("containerd", some(n)...)
		if err := client.UploadTraces(ctx, []*tracepb.ResourceSpans{sent}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		check(t, client.Stop(ctx))
		if got := sink.String(); got != fmt.Sprintf("containerd %d", n) {
			t.Errorf("%s: %s", name, got)
		} else if !proto.Equal(sink.data[0], sent) {
			t.Errorf("%s: other spans than were sent", name)
		}
	}
}

// TestJSON: a body as OTLP's specification writes it is taken, ids in hexadecimal.
func TestJSON(t *testing.T) {
	var sink taken
	_, at := serving(t, sink.take, Options{})
	answer, body := send(t, at, typeJSON, "", []byte(`{"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "crictl"}}]},
		"scopeSpans": [{"scope": {"name": "s"}, "spans": [{"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174", "parentSpanId": "eee19b7ec3c1b173",
		"name": "runp", "kind": 2, "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1544712661000000000, "aNewField": {"x": [1]},
		"attributes": [{"key": "n", "value": {"intValue": "42"}}], "links": [{"traceId": "5b8efff798038103d269b633813fc60d", "spanId": "eee19b7ec3c1b175"}], "status": {"code": 2, "message": "no"}}]}]}]}`))
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != typeJSON || string(body) != "{}" {
		t.Fatal(answer.Status, string(body))
	}
	s := sink.data[0].ScopeSpans[0].Spans[0]
	got := fmt.Sprintf("%s %x %x %x %x %d %v %v", sink.String(), s.TraceId, s.SpanId, s.ParentSpanId, s.Links[0].TraceId, s.EndTimeUnixNano, s.Attributes[0].Value.GetIntValue(), s.Status.Code)
	if want := "crictl 1 5b8efff798038103d269b633813fc60c eee19b7ec3c1b174 eee19b7ec3c1b173 5b8efff798038103d269b633813fc60d 1544712661000000000 42 STATUS_CODE_ERROR"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	answer, body = send(t, at, typeJSON, "", []byte(`{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "not hexadecimal", "spanId": "eee19b7ec3c1b174"}]}]}]}`))
	if answer.StatusCode != 400 || !strings.Contains(string(body), "not OTLP's JSON") || strings.Contains(string(body), "hexadecimal") {
		t.Error(answer.Status, string(body))
	}
	answer, body = send(t, at, typeJSON, "", []byte(`{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zzzzzzzz98038103d269b633813fc60d", "spanId": "eee19b7ec3c1b174"}]}]}]}`))
	if answer.StatusCode != 200 || string(body) != `{"partialSuccess":{"rejectedSpans":"1","errorMessage":"invalid spans"}}` && !strings.Contains(string(body), `"rejectedSpans":`) {
		t.Error(answer.Status, string(body))
	}
}

// send posts a body and returns the answer.
func send(t testing.TB, at, contentType, encoding string, body []byte) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+httpPath, bytes.NewReader(body))
	check(t, err)
	req.Header.Set("Content-Type", contentType)
	if encoding != "" {
		req.Header.Set("Content-Encoding", encoding)
	}
	req.Close = true
	answer, err := http.DefaultClient.Do(req)
	check(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	check(t, err)
	return answer, text
}

func dial(t testing.TB, at string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(at, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestGRPC: gRPC's own client understands each answer.
func TestGRPC(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	var sink taken
	_, at := serving(t, sink.take, Options{MaxBody: 256 << 10, Counters: c})
	client := collectorpb.NewTraceServiceClient(dial(t, at))
	export := func(opts []grpc.CallOption, all ...*tracepb.ResourceSpans) (*collectorpb.ExportTraceServiceResponse, error) {
		return client.Export(t.Context(), &collectorpb.ExportTraceServiceRequest{ResourceSpans: all}, opts...)
	}
	compressed := []grpc.CallOption{grpc.UseCompressor(gzip.Name)}
	if answer, err := export(compressed, spansOf("a", some(100)...)); err != nil || answer.PartialSuccess != nil {
		t.Error(answer, err)
	}
	invalid := spanOf(1)
	invalid.TraceId = nil
	if answer, err := export(nil, spansOf("a", invalid, invalid, spanOf(2))); err != nil || answer.PartialSuccess.GetRejectedSpans() != 2 {
		t.Error(answer, err)
	}
	for i, opts := range [][]grpc.CallOption{nil, compressed} {
		if _, err := export(opts, spansOf("a", some(2000)...)); status.Code(err) != codes.ResourceExhausted {
			t.Error(i, err)
		}
	}
	if got := sink.String(); got != "a 100, a 1" {
		t.Error(got)
	}
	sink.err = errors.New("100 % of the disk\nis away")
	if _, err := export(nil, spansOf("a", some(1)...)); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != sink.err.Error() {
		t.Error(err)
	}
	if got := fmt.Sprint(c.Losses.Counts(), c.Postponed.Load(), c.Posts.Load(), c.Spans.Load()); got != "map[no_identity:2 oversized_post:2] 1 2 101" {
		t.Error(got)
	}
}
