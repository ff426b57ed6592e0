package backends

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpvalue"
)

// planted is a loss that the journal has, so that each metric has something to say.
var planted = struct {
	reason losses.Reason
	spans  int
	name   string
}{losses.SpanRate, 4, "agent: span_rate"}

// TestCollectorMetrics compares the metrics that a real Collector has got, through each of its
// doors, with what the document, shimtrace status and the journal say.
func TestCollectorMetrics(t *testing.T) {
	s := start(t)
	s.run()
	check(t, s.Rig.Ctr("run", "--detach", "--runtime", s.Runtime.Shim(), image.Busybox, "stays", "sleep", "1000").Check())
	t.Cleanup(func() { _ = s.Rig.Ctr("tasks", "delete", "--force", "stays") })
	j := journal.New(s.Journal, journal.Options{})
	j.Losses(losses.Agents).Add(planted.reason, planted.spans)
	check(t, j.Close())
	d := s.open()
	begun := make(map[string]uint64)
	for i, p := range d.pipes {
		keys, there := d.good[p.name]
		if !there {
			continue
		}
		t.Run(p.name+" "+p.protocol, func(t *testing.T) {
			cmd, said, file := s.collector(t.Context(), t, "", p.id(), p.target()+keys, "--service")
			check(t, cmd.Start())
			defer func() {
				_ = cmd.Process.Signal(syscall.SIGTERM)
				if err := cmd.Wait(); err != nil || t.Failed() {
					t.Errorf("%v\n%s", err, said)
				}
			}()
			check(t, s.Rig.Ctr("run", "--rm", "--runtime", s.Runtime.Shim(), image.Busybox, fmt.Sprint("another", i), "true").Check())
			s.metered(t, p, file, filepath.Join(d.dir, p.id()+metricsFile), begun)
		})
	}
	if len(begun) == 0 {
		t.Error("nothing is counted from a moment on")
	}
}

// metered waits until the last metrics in a file of the Collector's are what everything else
// says.
func (s *site) metered(t *testing.T, p pipe, config, file string, begun map[string]uint64) {
	t.Helper()
	documented := documentedMetrics(t)
	var differ []string
	defer func() {
		if t.Failed() {
			t.Logf("%s", strings.Join(differ, "\n"))
		}
	}()
	until(t, "the metrics to be what status and journal say", func() bool {
		now := s.status(t, config)
		spans, err := s.SpansBut(planted.name)
		check(t, err)
		rm := lastMetrics(t, file)
		if rm == nil {
			return false
		}
		c := comparison{got: make(map[string]*metricspb.Metric)}
		for _, m := range rm.ScopeMetrics[0].Metrics {
			c.got[m.Name] = m
		}
		resource := otlpvalue.Map(rm.Resource.Attributes)
		host, _ := os.Hostname()
		c.same("service", resource["service.name"], "shimtrace")
		c.same("host", resource["host.name"], host)
		c.same("metrics", slices.Sorted(maps.Keys(c.got)), slices.Sorted(maps.Keys(documented)))
		for name, m := range c.got {
			c.form(m, documented[name])
		}
		c.picture(now, p)
		c.journal(s.Journal, now, spans)
		c.starts(spans)
		for name := range documented { // those that outlive the process
			if m := c.got[name]; m != nil && c.outlives(name) {
				since := firstPoint(m)
				begun[name] = cmp.Or(begun[name], since)
				c.same(name+" counts since", since, begun[name])
			}
		}
		differ = c.differ
		return len(differ) == 0
	})
}

// picture is what shimtrace status --json says, as far as metrics have it.
type picture struct {
	Relays []struct {
		Guarded bool
		Facts   struct { // of a VM's spans; there is none here
			Reparented int64 `json:"reparented_spans"`
		}
	}
	Journals []struct {
		Bytes  int64
		Max    int64 `json:"max_bytes"`
		Spans  int64
		Lost   map[string]int64
		Shares []struct {
			Of    string
			Bytes int64
		}
		Targets []struct{ Waiting, Shipped, Aside int64 }
	}
}

// status returns what shimtrace status --json says.
func (s *site) status(t *testing.T, config string) (p picture) {
	t.Helper()
	cmd := s.Rig.Command(t.Context(), filepath.Join(s.Bin, "shimtrace"), "status", "--json", "--wait", "1m")
	cmd.Env = append(cmd.Environ(), "SHIMTRACE_CONFIG="+config)
	out, err := cmd.Output()
	check(t, err)
	check(t, json.Unmarshal(out, &p))
	return p
}

func lastMetrics(t *testing.T, file string) *metricspb.ResourceMetrics {
	t.Helper()
	all := messages(t, file)
	if len(all) == 0 {
		return nil
	}
	var data metricspb.MetricsData
	check(t, proto.Unmarshal(all[len(all)-1], &data))
	return data.ResourceMetrics[0]
}

// documented is a metric as docs/operation.md has it.
type documented struct {
	kind, unit, meaning string
	attributes          []string
}

// documentedMetrics returns what the document says, by name.
func documentedMetrics(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../docs/operation.md")
	check(t, err)
	all := make(map[string]documented)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z.]+)` \\| ([a-z -]+), `([^`]+)` \\| ([^|]*) \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		d := documented{kind: row[2], unit: row[3], meaning: row[5]}
		for _, a := range strings.Split(row[4], ",") {
			if a = strings.Trim(a, " `"); a != "" {
				d.attributes = append(d.attributes, a)
			}
		}
		all[row[1]] = d
	}
	if len(all) < 10 {
		t.Fatalf("the document has %d metrics", len(all))
	}
	return all
}

// comparison gathers in what metrics differ from what they are to be.
type comparison struct {
	got    map[string]*metricspb.Metric
	differ []string
}

func (c *comparison) same(what string, got, want any) {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		c.differ = append(c.differ, fmt.Sprintf("%s is %v, want %v", what, got, want))
	}
}

// form compares a metric's form with the document: kind, unit, attributes and temporality.
func (c *comparison) form(m *metricspb.Metric, want documented) {
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	c.same(m.Name+": unit", m.Unit, want.unit)
	c.same(m.Name+": description", m.Description, want.meaning)
	kind := "?"
	switch h := m.GetExponentialHistogram(); {
	case h != nil:
		kind = "exponential histogram"
		c.same(m.Name+": temporality", h.AggregationTemporality, cumulative)
	case m.GetSum() != nil:
		kind = map[bool]string{true: "counter", false: "up-down counter"}[m.GetSum().IsMonotonic]
		c.same(m.Name+": temporality", m.GetSum().AggregationTemporality, cumulative)
	}
	c.same(m.Name+": kind", kind, want.kind)
	for _, p := range pointsOf(m) {
		for key := range p.attrs {
			if !slices.Contains(want.attributes, key) {
				c.same(m.Name+": attribute "+key, "there", "undocumented")
			}
		}
		if p.since == 0 || p.since > p.time {
			c.same(m.Name+": counts since", p.since, fmt.Sprint("a moment before ", p.time))
		}
	}
}

// point is one of a metric's.
type point struct {
	attrs       map[string]any
	value       int64 // of a sum
	since, time uint64
}

func pointsOf(m *metricspb.Metric) (all []point) {
	for _, p := range m.GetSum().GetDataPoints() {
		all = append(all, point{otlpvalue.Map(p.Attributes), p.GetAsInt(), p.StartTimeUnixNano, p.TimeUnixNano})
	}
	for _, p := range m.GetExponentialHistogram().GetDataPoints() {
		all = append(all, point{otlpvalue.Map(p.Attributes), 0, p.StartTimeUnixNano, p.TimeUnixNano})
	}
	return all
}

func firstPoint(m *metricspb.Metric) uint64 { return pointsOf(m)[0].since }

// outlives reports whether a metric counts over all processes of shimtrace collect.
func (c *comparison) outlives(name string) bool {
	return !slices.Contains([]string{"otel.sdk.exporter.span.exported"}, name) && (c.got[name].GetSum().GetIsMonotonic() || c.got[name].GetExponentialHistogram() != nil)
}

// values compares all points of a metric with what they are to be, by their attributes but for
// what names the component.
func (c *comparison) values(name string, want map[string]int64) {
	got := make(map[string]int64)
	for _, p := range pointsOf(c.got[name]) {
		got[key(p.attrs)] = p.value
	}
	c.same(name, got, want)
}

// key is the text of attributes but for the component and the journal, which the others are of.
func key(attrs map[string]any) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		if k != names.MetricJournal && !strings.HasPrefix(k, "otel.component.") {
			all = append(all, fmt.Sprint(attrs[k]))
		}
	}
	return strings.Join(all, " ")
}

// picture compares what status has.
func (c *comparison) picture(now picture, p pipe) {
	relays, reparented := map[string]int64{"guarded": 0, "unguarded": 0, "silent": 0}, int64(0)
	for _, r := range now.Relays {
		relays[map[bool]string{true: "guarded", false: "unguarded"}[r.Guarded]]++
		reparented += r.Facts.Reparented
	}
	c.same("relays", len(now.Relays), 1)
	c.values("shimtrace.relay.count", relays)
	c.values("shimtrace.span.reparented", map[string]int64{"": reparented})
	j := now.Journals[0]
	c.values("shimtrace.journal.size", map[string]int64{"": j.Bytes})
	c.values("shimtrace.journal.limit", map[string]int64{"": j.Max})
	shares := make(map[string]int64)
	for _, s := range j.Shares {
		shares[cmp.Or(s.Of, "other")] += s.Bytes
	}
	c.values("shimtrace.journal.share.size", shares)
	c.same("lost", j.Lost, map[string]int64{planted.name: int64(planted.spans)})
	c.values("shimtrace.span.lost", j.Lost)
	to := j.Targets[0]
	c.same("shipped", to.Shipped > 0, true)
	c.values("otel.sdk.processor.span.queue.size", map[string]int64{"": to.Waiting})
	c.values("otel.sdk.exporter.span.inflight", map[string]int64{"": to.Aside})
	c.values("otel.sdk.exporter.span.exported", map[string]int64{"": to.Shipped})
	component := map[string]string{"http": "otlp_http_span_exporter", "grpc": "otlp_grpc_span_exporter"}[p.protocol]
	for _, name := range []string{"otel.sdk.processor.span.queue.size", "otel.sdk.exporter.span.inflight", "otel.sdk.exporter.span.exported"} {
		for _, point := range pointsOf(c.got[name]) {
			c.same(name+": component", point.attrs["otel.component.type"], component)
			c.same(name+": component", point.attrs["otel.component.name"], component+"/"+p.id())
		}
	}
}

// journal compares what the journal has.
func (c *comparison) journal(dir string, now picture, spans []otlprecv.Span) {
	all := int64(len(spans))
	c.same("spans in the journal", now.Journals[0].Spans, all)
	c.values("otel.sdk.span.started", map[string]int64{"": all})
	c.values("shimtrace.span.recorded", map[string]int64{"shim": all})
	c.values("otel.sdk.processor.span.processed", map[string]int64{"": all, planted.name: int64(planted.spans)})
	c.same("all are shipped", now.Journals[0].Targets[0].Shipped, all)
	for name, m := range c.got {
		for _, p := range pointsOf(m) {
			if of, there := p.attrs[names.MetricJournal]; there {
				c.same(name+": journal", of, dir)
			}
		}
	}
}

// starts compares the durations of starts with their spans, bucket by bucket.
func (c *comparison) starts(spans []otlprecv.Span) {
	type start struct{ count, buckets, sum, least, most any }
	want, byID, failed := make(map[string][]float64), make(map[string]float64), 0
	for _, s := range otlprecv.Named(spans, names.SandboxStart) {
		of := fmt.Sprint(s.Resource[names.Runtime])
		if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
			of, failed = "start_failed "+of, failed+1
		}
		seconds := s.End().Sub(s.Start()).Seconds()
		want[of] = append(want[of], seconds)
		byID[s.TraceID+s.ID] = seconds
	}
	got := make(map[string]start)
	exemplars := 0
	for _, p := range c.got["shimtrace.sandbox.start.duration"].GetExponentialHistogram().GetDataPoints() {
		buckets := make(map[int]uint64)
		for i, n := range p.Positive.BucketCounts {
			if n > 0 {
				buckets[int(p.Positive.Offset)+i] = n
			}
		}
		got[key(otlpvalue.Map(p.Attributes))] = start{p.Count, buckets, rounded(p.GetSum()), p.GetMin(), p.GetMax()}
		c.same("scale", p.Scale, 3)
		for _, e := range p.Exemplars {
			exemplars++
			id := hex.EncodeToString(e.TraceId) + hex.EncodeToString(e.SpanId)
			c.same("the exemplar "+id, e.GetAsDouble(), byID[id])
		}
	}
	expected := make(map[string]start)
	for of, all := range want {
		buckets, sum := make(map[int]uint64), 0.0
		for _, v := range all {
			buckets[int(math.Ceil(math.Log2(v)*8))-1]++
			sum += v
		}
		expected[of] = start{len(all), buckets, rounded(sum), slices.Min(all), slices.Max(all)}
	}
	c.same("starts", got, expected)
	c.same("some have failed, and some not", failed > 0 && failed < len(byID), true)
	c.same("there are exemplars", exemplars > 0, true)
}

// rounded is a sum whose terms may come in any order.
func rounded(seconds float64) string { return fmt.Sprintf("%.9f", seconds) }
