package receiver

import (
	"bytes"
	gz "compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
)

func zip(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gz.NewWriter(&out)
	_, err := w.Write(b)
	check(t, errors.Join(err, w.Close()))
	return out.Bytes()
}

// TestRefusals: each post that cannot be taken gets the answer that makes its exporter
// drop it, which is counted, or send it again, which is none.
func TestRefusals(t *testing.T) {
	good := body(t, spansOf("a", some(1)...))
	invalid := spanOf(3)
	invalid.SpanId = nil
	partly := body(t, spansOf("a", spanOf(1), invalid))
	for _, tt := range []struct {
		name, contentType, encoding string
		body                        []byte
		status                      int
		code                        codes.Code
		lost                        string
	}{
		{"taken", typeProtobuf, "", good, 200, codes.OK, "map[]"},
		{"with a charset", typeJSON + "; charset=utf-8", "", []byte("{}"), 200, codes.OK, "map[]"},
		{"inflated", typeProtobuf, "gzip", zip(t, good), 200, codes.OK, "map[]"},
		{"partly", typeProtobuf, "", partly, 200, codes.OK, "map[no_identity:1]"},
		{"empty", typeProtobuf, "", nil, 200, codes.OK, "map[]"},
		{"text", "text/plain", "", good, 415, codes.Unimplemented, "map[refused_post:1]"},
		{"encoding", typeProtobuf, "br", good, 415, codes.Unimplemented, "map[refused_post:1]"},
		{"no gzip", typeProtobuf, "gzip", good, 400, codes.InvalidArgument, "map[malformed_post:1]"},
		{"malformed", typeProtobuf, "", good[1:], 400, codes.InvalidArgument, "map[malformed_post:1]"},
		{"long", typeProtobuf, "", make([]byte, 1<<20), 413, codes.ResourceExhausted, "map[oversized_post:1]"},
		{"a bomb", typeProtobuf, "gzip", zip(t, make([]byte, 8<<20)), 413, codes.ResourceExhausted, "map[oversized_post:1]"},
		{"long JSON", typeJSON, "", make([]byte, 200<<10), 413, codes.ResourceExhausted, "map[oversized_post:1]"},
		{"deep JSON", typeJSON, "", bytes.Repeat([]byte("["), 100000), 400, codes.InvalidArgument, "map[malformed_post:1]"},
	} {
		c := &Counters{Losses: new(losses.Tally)}
		var sink taken
		_, at := serving(t, sink.take, Options{MaxBody: 512 << 10, Counters: c})
		answer, body := send(t, at, tt.contentType, tt.encoding, tt.body)
		if answer.StatusCode != tt.status || fmt.Sprint(c.Losses.Counts()) != tt.lost || c.Postponed.Load() != 0 {
			t.Errorf("%s: %s, lost %v, %d postponed", tt.name, answer.Status, c.Losses.Counts(), c.Postponed.Load())
		}
		if tt.status == 200 {
			continue
		}
		var s rpcstatus.Status
		if err := proto.Unmarshal(body, &s); strings.HasPrefix(tt.contentType, typeJSON) {
			err = protojson.Unmarshal(body, &s)
			check(t, err)
		} else {
			check(t, err)
		}
		if codes.Code(s.Code) != tt.code || s.Message == "" {
			t.Errorf("%s: code %v, %q", tt.name, codes.Code(s.Code), s.Message)
		}
	}
}

// TestOtherRequests: what is not for us gets an answer that says so, and is no loss.
func TestOtherRequests(t *testing.T) {
	c := &Counters{Losses: new(losses.Tally)}
	var sink taken
	_, at := serving(t, sink.take, Options{Counters: c})
	for path, status := range map[string]int{"/": 404, "/v1/metrics": 404, "/api/traces": 404, httpPath: 405} {
		answer, err := http.Get("http://" + at + path)
		check(t, err)
		answer.Body.Close()
		if answer.StatusCode != status {
			t.Errorf("%s: %s", path, answer.Status)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	conn := dial(t, at)
	err := conn.Invoke(t.Context(), "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", new(collectorpb.ExportTraceServiceRequest), new(collectorpb.ExportTraceServiceResponse))
	if status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	if n := c.Losses.Counts(); len(n) != 0 {
		t.Error(n)
	}
}
