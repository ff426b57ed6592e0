package metrics

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	colmetricspb "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// backend is a receiver of OTLP metrics, over both protocols.
type backend struct {
	colmetricspb.UnimplementedMetricsServiceServer
	mu   sync.Mutex
	keys []string
	got  []*colmetricspb.ExportMetricsServiceRequest
}

func (b *backend) take(key string, r *colmetricspb.ExportMetricsServiceRequest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keys, b.got = append(b.keys, key), append(b.got, r)
}

// Export implements the service over gRPC.
func (b *backend) Export(ctx context.Context, r *colmetricspb.ExportMetricsServiceRequest) (*colmetricspb.ExportMetricsServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	b.take(strings.Join(md.Get("key"), ""), r)
	return new(colmetricspb.ExportMetricsServiceResponse), nil
}

// ServeHTTP implements it over HTTP.
func (b *backend) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path != "/base/v1/metrics" {
		http.NotFound(w, req)
		return
	}
	z, err := gzip.NewReader(req.Body)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(z)
	}
	r := new(colmetricspb.ExportMetricsServiceRequest)
	if err = errors.Join(err, proto.Unmarshal(body, r)); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	b.take(req.Header.Get("key"), r)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// last returns the latest request with what has arrived before it, nil if there are fewer
// than n.
func (b *backend) last(n int) *colmetricspb.ExportMetricsServiceRequest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.got) < n {
		return nil
	}
	return b.got[len(b.got)-1]
}

// value returns the sum of a metric's points with these attributes ("key=value").
func value(r *colmetricspb.ExportMetricsServiceRequest, name string, attrs ...string) (sum int64, points int) {
	for _, p := range find(r, name).GetSum().GetDataPoints() {
		has := make(map[string]bool)
		for _, a := range p.Attributes {
			has[a.Key+"="+a.Value.GetStringValue()] = true
			has[a.Key] = true
		}
		all := true
		for _, a := range attrs {
			without, negated := strings.CutPrefix(a, "!")
			all = all && has[without] != negated
		}
		if all {
			sum, points = sum+p.GetAsInt(), points+1
		}
	}
	return sum, points
}

func find(r *colmetricspb.ExportMetricsServiceRequest, name string) *metricspb.Metric {
	for _, m := range r.ResourceMetrics[0].ScopeMetrics[0].Metrics {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// host is a configuration with directories of its own, that sends as often as may be.
func host(t *testing.T, endpoint, protocol string) config.Config {
	t.Helper()
	cfg := config.Default()
	cfg.Journal.Dir, cfg.Relay.StateDir = filepath.Join(t.TempDir(), "journal"), t.TempDir()
	cfg.Export.Endpoint, cfg.Export.Protocol, cfg.Export.Headers = endpoint, protocol, map[string]string{"key": "planted"}
	cfg.Metrics = config.Metrics{Send: "on", Interval: config.Duration(time.Millisecond)}
	return cfg
}

var eventually = testkit.Until

// TestSender: over both protocols, what arrives is what the journal and its totals have, with
// the configured headers, and goes on rising with the next process.
func TestSender(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			b := new(backend)
			var endpoint string
			if protocol == "grpc" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				s := grpc.NewServer()
				colmetricspb.RegisterMetricsServiceServer(s, b)
				go func() { _ = s.Serve(l) }()
				t.Cleanup(s.Stop)
				endpoint = "http://" + l.Addr().String()
			} else {
				s := httptest.NewServer(b)
				t.Cleanup(s.Close)
				endpoint = s.URL + "/base"
			}
			cfg := host(t, endpoint, protocol)
			j := journal.New(cfg.Journal.Dir, journal.Options{})
			defer j.Close()
			j.Losses(losses.Agents).Add(losses.SpanRate, 4)
			write(t, j, spansOf("runc", names.ShimScope, began(7, 300*time.Millisecond, false), &tracepb.Span{Name: "x"}))
			write(t, j, spansOf("runc", names.ShimScope, began(8, 3*time.Second, true)))
			write(t, j, spansOf("kata", names.AgentScope, &tracepb.Span{Name: "y"}))
			aside := journal.Range{Spans: 1}
			if _, err := journal.Scan(cfg.Journal.Dir, func(r journal.Record) error {
				aside.Segment, aside.Offset, aside.End = r.Segment, r.Offset, r.End()
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			at := journal.Cursor{Position: journal.Position{Segment: aside.Segment, Offset: aside.End}, Aside: []journal.Range{aside}}
			if err := journal.WriteCursor(cfg.Journal.Dir, "", at); err != nil {
				t.Fatal(err)
			}
			write(t, j, spansOf("kata", names.AgentScope, &tracepb.Span{Name: "unread"}))
			l, err := ship.OpenLedger(ship.TotalsPath(cfg.Journal.Dir, ""))
			if err == nil {
				err = l.Note(ship.Status{Shipped: 2, Rejected: map[losses.Reason]int{losses.CollectorRefused: 1}})
			}
			if err != nil {
				t.Fatal(err)
			}
			failed := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			s := &Sender{Version: "v1", Warn: failed}
			s.Follow([]config.Config{cfg})
			eventually(t, "two uploads", func() bool { return b.last(2) != nil })
			s.Close()
			r := b.last(1)
			for _, tt := range []struct {
				name  string
				attrs []string
				want  int64
			}{
				{"otel.sdk.span.started", nil, 3},
				{"otel.sdk.processor.span.processed", []string{"!error.type"}, 5},
				{"otel.sdk.processor.span.processed", []string{"error.type=agent: span_rate"}, 4},
				{"otel.sdk.processor.span.queue.size", nil, 1},
				{"otel.sdk.exporter.span.exported", []string{"!error.type"}, 2},
				{"otel.sdk.exporter.span.exported", []string{"error.type=collector_refused"}, 1},
				{"otel.sdk.exporter.span.inflight", nil, 1},
				{"shimtrace.span.recorded", []string{"shimtrace.span.origin=shim"}, 3},
				{"shimtrace.span.recorded", []string{"shimtrace.span.origin=agent"}, 2},
				{"shimtrace.span.lost", []string{"error.type=agent: span_rate"}, 4},
				{"shimtrace.relay.count", nil, 0},
			} {
				if got, points := value(r, tt.name, tt.attrs...); got != tt.want || points == 0 {
					t.Errorf("%s%v is %d in %d points, want %d", tt.name, tt.attrs, got, points, tt.want)
				}
			}
			sum := find(r, "shimtrace.span.recorded").GetSum()
			if !sum.IsMonotonic || sum.AggregationTemporality != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
				t.Errorf("%v", sum)
			}
			starts := find(r, "shimtrace.sandbox.start.duration").GetExponentialHistogram().GetDataPoints()
			if len(starts) != 2 || starts[0].Count != 1 || *starts[0].Sum != 0.3 || len(starts[0].Exemplars) != 1 ||
				starts[0].Exemplars[0].TraceId[15] != 7 || starts[0].Exemplars[0].SpanId[7] != 7 || starts[1].Exemplars[0].TraceId[15] != 8 {
				t.Errorf("starts %v", starts)
			}
			for _, key := range b.keys {
				if key != "planted" {
					t.Errorf("the header is %q", key)
				}
			}
			// The next process.
			write(t, j, spansOf("runc", names.ShimScope, began(9, time.Second, false)))
			n := len(b.got)
			s = &Sender{Warn: failed}
			s.Follow([]config.Config{cfg})
			eventually(t, "an upload of the next process", func() bool { return b.last(n+1) != nil })
			s.Close()
			if got, _ := value(b.last(1), "otel.sdk.span.started"); got != 4 {
				t.Errorf("%d spans, want 4", got)
			}
			now := find(b.last(1), "otel.sdk.span.started").GetSum().GetDataPoints()[0]
			if was := find(r, "otel.sdk.span.started").GetSum().GetDataPoints()[0]; now.StartTimeUnixNano != was.StartTimeUnixNano || now.StartTimeUnixNano == 0 {
				t.Errorf("counted since %d, was %d", now.StartTimeUnixNano, was.StartTimeUnixNano)
			}
			// Who sends nothing any more ends.
			cfg.Metrics.Send = "off"
			s.Follow([]config.Config{cfg})
			s.Close()
		})
	}
}

// TestSenderFails: a backend that takes no metrics is said once, without what is secret,
// until it takes some.
func TestSenderFails(t *testing.T) {
	b := new(backend)
	var tries, fails int
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		tries++
		failing := fails > 0
		mu.Unlock()
		if failing {
			http.Error(w, "no metrics for "+req.Header.Get("key"), http.StatusNotFound)
			return
		}
		b.ServeHTTP(w, req)
	}))
	defer s.Close()
	fails = 1
	var said []string
	warn := func(err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, err.Error())
		}
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return tries }
	sender := &Sender{Warn: warn}
	sender.Follow([]config.Config{host(t, s.URL+"/base", "http/protobuf")})
	eventually(t, "five attempts", func() bool { return count() >= 5 })
	mu.Lock()
	fails = 0
	mu.Unlock()
	eventually(t, "metrics to be taken", func() bool { return b.last(1) != nil })
	sender.Close()
	if len(said) != 1 || strings.Contains(said[0], "planted") || !strings.Contains(said[0], "takes no metrics") || !strings.Contains(said[0], "404") {
		t.Errorf("said %q", said)
	}
}

// TestNowhere: metrics without a target that could take them are said to go nowhere.
func TestNowhere(t *testing.T) {
	for _, protocol := range []string{"zipkin", ""} {
		cfg := host(t, "http://127.0.0.1:1", protocol)
		if protocol == "" {
			cfg.Export.Endpoint = ""
		}
		var said error
		s := &Sender{Warn: func(err error) { said = err }}
		s.Follow([]config.Config{cfg})
		s.Close()
		if said == nil || !strings.Contains(said.Error(), "speaks OTLP") || Sends(cfg) {
			t.Errorf("%q: %v", protocol, said)
		}
	}
}
