package traced_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	colmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// metricOf returns a metric of an upload, nil if it is not there.
func metricOf(r *colmetrics.ExportMetricsServiceRequest, name string) *metricspb.Metric {
	for _, m := range r.ResourceMetrics[0].ScopeMetrics[0].Metrics {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// total returns the sum of a metric's points without errors.
func total(r *colmetrics.ExportMetricsServiceRequest, name string) (sum int64) {
	for _, p := range metricOf(r, name).GetSum().GetDataPoints() {
		failed := false
		for _, a := range p.Attributes {
			failed = failed || a.Key == "error.type"
		}
		if !failed {
			sum += p.GetAsInt()
		}
	}
	return sum
}

// TestMetrics: of containers that start, and of their spans, the metrics have what the
// collector has got, over all processes that send them; their exemplars are the starts.
func TestMetrics(t *testing.T) {
	t.Parallel()
	c := collect(t, traced.Options{
		Options: rig.Options{Version: rig.V24},
		Config:  "[metrics]\nsend = 'on'\ninterval = '200ms'\n[export]\nendpoint = 'http://" + httpAddr + "'\n",
	})
	const starts = 4
	for i := range starts {
		check(t, c.Rig.Ctr("run", "--rm", "--runtime", c.Runtime.Shim(), image.Busybox, fmt.Sprint("c", i), "true").Check())
	}
	spans := c.arrived()
	until(t, "shimtrace collect to end", func() bool { return len(c.shippers()) == 0 })
	all := c.recv.Metrics()
	if len(all) == 0 {
		t.Fatal("there are no metrics")
	}
	last := all[len(all)-1]
	roots, exemplars := make(map[string]bool), make(map[string]bool)
	for _, s := range otlprecv.Named(spans, "sandbox start") {
		roots[s.TraceID+" "+s.ID] = true
	}
	count, before := uint64(0), uint64(0)
	for _, r := range all {
		count = 0
		for _, p := range metricOf(r, "shimtrace.sandbox.start.duration").GetExponentialHistogram().GetDataPoints() {
			count += p.Count
			for _, e := range p.Exemplars {
				exemplars[hex.EncodeToString(e.TraceId)+" "+hex.EncodeToString(e.SpanId)] = true
			}
		}
		if count < before {
			t.Errorf("%d starts after %d", count, before)
		}
		before = count
	}
	if count != starts || len(roots) != starts {
		t.Errorf("%d starts are counted, and %d have spans; want %d", count, len(roots), starts)
	}
	for e := range exemplars {
		if !roots[e] {
			t.Errorf("the exemplar %s is no start", e)
		}
	}
	if len(exemplars) != starts {
		t.Errorf("%d exemplars, want %d", len(exemplars), starts)
	}
	for name, want := range map[string]int{
		"otel.sdk.span.started": len(spans), "otel.sdk.processor.span.processed": len(spans), "otel.sdk.exporter.span.exported": len(spans),
		"otel.sdk.processor.span.queue.size": 0, "otel.sdk.exporter.span.inflight": 0,
	} {
		if got := total(last, name); got != int64(want) {
			t.Errorf("%s is %d, want %d", name, got, want)
		}
	}
}
