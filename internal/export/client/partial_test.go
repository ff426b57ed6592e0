package client

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestPartialSuccessIsOneAnswer ships to a collector that takes uploads without some
// spans, or with a warning, in each encoding: nothing is posted twice.
func TestPartialSuccessIsOneAnswer(t *testing.T) {
	message := func(p *coltracepb.ExportTracePartialSuccess) string {
		b, err := proto.Marshal(&coltracepb.ExportTraceServiceResponse{PartialSuccess: p})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	lost := map[string]int{"collector_refused_some": 2}
	for _, tt := range []struct {
		kind, body string
		lost       map[string]int
		shipped    int
	}{
		{"application/json", `{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}`, lost, 3},
		{"application/x-protobuf", message(&coltracepb.ExportTracePartialSuccess{RejectedSpans: 2, ErrorMessage: "too old"}), lost, 3},
		{"application/json", `{"partialSuccess":{"errorMessage":"deprecated"}}`, map[string]int{}, 5},
		{"application/x-protobuf", message(&coltracepb.ExportTracePartialSuccess{ErrorMessage: "deprecated"}), map[string]int{}, 5},
	} {
		l := listen(t, "127.0.0.1:0")
		var posts atomic.Int32
		serveHandler(t, l, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			posts.Add(1)
			w.Header().Set("Content-Type", tt.kind)
			_, _ = io.WriteString(w, tt.body)
		})
		run := shipTo(t, exportTo(l, overHTTP, ""))
		run.record(t, "sandbox", "a", "b", "c", "d", "e")
		eventually(t, "it is taken", func() bool { return run.shipped() == tt.shipped })
		time.Sleep(5 * testPause) // in which it could be posted again
		if posts.Load() != 1 || run.failures() > 0 || !maps.Equal(run.drops(t), tt.lost) || run.notice() == "" {
			t.Errorf("%s %q: %d posts, %d failures, lost %v, said %q", tt.kind, tt.body, posts.Load(), run.failures(), run.drops(t), run.notice())
		}
	}
	reliability.Row(t, reliability.Fault{Area: area,
		Fault: "the collector takes an upload without two of its five spans, or with a warning; in protobuf and JSON",
		Pod:   "nothing", Lost: "these two, as `collector_refused_some`; nothing by a warning. Nothing is posted twice"})
}

// TestSizeLimits: collectors take few spans at once, and refuse more in the words of
// their libraries.
func TestSizeLimits(t *testing.T) {
	for _, limit := range []error{
		status.Error(codes.ResourceExhausted, "grpc: received message larger than max (5000000 vs. 4194304)"),
		status.Error(codes.ResourceExhausted, "gRPC message exceeds maximum size 4194304: 5000000"),
		status.Error(codes.OutOfRange, "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes"),
		status.Error(codes.ResourceExhausted, "in words that nobody knows"),
		status.Error(codes.Internal, "RST_STREAM closed stream"),
	} {
		t.Run(limit.Error(), func(t *testing.T) {
			t.Parallel()
			l := listen(t, "127.0.0.1:0")
			c := &collector{most: 7, failRPC: func() error { return limit }}
			c.serveGRPC(t, l)
			run := shipTo(t, exportTo(l, overGRPC, ""))
			var names []string
			for i := range 40 {
				names = append(names, fmt.Sprint("span", i))
			}
			run.record(t, "sandbox", names...)
			run.record(t, "other", "other")
			eventually(t, "everything arrives", func() bool { return c.distinct() == 41 })
			if d := run.drops(t); len(d) > 0 {
				t.Errorf("lost %v", d)
			}
		})
	}
}
