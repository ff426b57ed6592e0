package metrics

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/status"
)

// maxShares bounds the shares that are told apart.
const maxShares = 32

// batch gathers the points of metrics at one moment.
type batch struct {
	now     time.Time
	sums    map[string][]metricdata.DataPoint[int64]
	started []metricdata.ExponentialHistogramDataPoint[float64]
}

func newBatch(now time.Time) *batch {
	return &batch{now: now, sums: make(map[string][]metricdata.DataPoint[int64])}
}

// add adds a point. since is when a counter began.
func (b *batch) add(m metric, since time.Time, value uint64, attrs ...attribute.KeyValue) {
	b.sums[m.name] = append(b.sums[m.name], metricdata.DataPoint[int64]{
		Attributes: attribute.NewSet(attrs...), StartTime: since, Time: b.now, Value: int64(value),
	})
}

// metrics returns what was added, in the order of the table.
func (b *batch) metrics() (all []metricdata.Metrics) {
	for _, m := range table {
		var data metricdata.Aggregation
		switch points := b.sums[m.name]; {
		case m.kind == exponential && len(b.started) > 0:
			data = metricdata.ExponentialHistogram[float64]{Temporality: metricdata.CumulativeTemporality, DataPoints: b.started}
		case len(points) == 0:
			continue
		default:
			data = metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: m.kind == counter, DataPoints: points}
		}
		all = append(all, metricdata.Metrics{Name: m.name, Description: m.meaning, Unit: m.unit, Data: data})
	}
	return all
}

// afterJournal are the reasons for which spans that have been in the journal are lost or no
// longer needed. The reasons of a target with a name, which are not listed here, are all such.
var afterJournal = map[string]bool{}

func init() {
	for _, r := range []losses.Reason{
		losses.OverShare, losses.JournalFull, losses.Retention, losses.KeptOut, losses.Undecodable,
		losses.CollectorRefused, losses.CollectorRefusedSome, losses.CollectorTooLarge, losses.CollectorFails,
	} {
		afterJournal[r.String()] = true
	}
}

// addMeter adds what was counted in a journal.
func (b *batch) addMeter(m *Meter) {
	s, at := &m.state, attribute.String(attrJournal, m.dir)
	component := []attribute.KeyValue{at, attribute.String(attrComponentType, "shimtrace_journal"), attribute.String(attrComponent, "shimtrace_journal/0")}
	var written uint64
	for _, origin := range slices.Sorted(maps.Keys(s.Recorded)) {
		n := s.Recorded[origin]
		written += n
		b.add(spanRecorded, s.Since, n, at, attribute.String(attrOrigin, origin))
	}
	b.add(spanStarted, s.Since, s.Recorded[originShim], at)
	b.add(spanProcessed, s.Since, written, component...)
	for _, reason := range slices.Sorted(maps.Keys(s.Lost)) {
		why := attribute.String(attrError, reason)
		b.add(spanLost, s.Since, s.Lost[reason], at, why)
		if !afterJournal[reason] && !losses.OfTarget(reason) {
			b.add(spanProcessed, s.Since, s.Lost[reason], append(slices.Clip(component), why)...)
		}
	}
	order := func(x, y startKind) int {
		return cmp.Or(cmp.Compare(x.Runtime, y.Runtime), strings.Compare(fmt.Sprint(x.Failed), fmt.Sprint(y.Failed)))
	}
	for _, k := range slices.SortedFunc(maps.Keys(s.Starts), order) {
		attrs := []attribute.KeyValue{at, attribute.String(names.Runtime, k.Runtime)}
		if k.Failed {
			attrs = append(attrs, attribute.String(attrError, "start_failed"))
		}
		p := s.Starts[k].point(s.Since, b.now)
		p.Attributes = attribute.NewSet(attrs...)
		b.started = append(b.started, p)
	}
}

// addPicture adds what a picture says of relays, and of journals and their targets.
func (b *batch) addPicture(p *status.Picture, since time.Time) {
	count := map[string]uint64{"guarded": 0, "unguarded": 0, "silent": 0}
	for _, r := range p.Relays {
		switch {
		case r.Error != "":
			count["silent"]++
		case r.Guarded != nil && *r.Guarded:
			count["guarded"]++
		default:
			count["unguarded"]++
		}
	}
	for _, state := range slices.Sorted(maps.Keys(count)) {
		b.add(relayCount, since, count[state], attribute.String(attrState, state))
	}
	for _, j := range p.Journals {
		if j.Error == "" {
			b.addJournal(j, since)
		}
	}
}

func (b *batch) addJournal(j status.Journal, since time.Time) {
	at := attribute.String(attrJournal, j.Dir)
	b.add(journalSize, since, uint64(j.Bytes), at)
	b.add(journalLimit, since, uint64(j.Max), at)
	shares := make(map[string]uint64) // two sandboxes may have one name
	for _, s := range j.Shares {
		of := s.Of
		if _, known := shares[of]; of == "" || !known && len(shares) >= maxShares {
			of = "other"
		}
		shares[of] += uint64(s.Bytes)
	}
	for _, of := range slices.Sorted(maps.Keys(shares)) {
		b.add(shareSize, since, shares[of], at, attribute.String(attrShare, of))
	}
	for _, t := range j.Targets {
		b.addTarget(j.Dir, t, since)
	}
}

// addTarget adds what was shipped of a journal to a target.
func (b *batch) addTarget(dir string, t status.Target, since time.Time) {
	component := semconv.OTelComponentTypeOtlpHTTPSpanExporter
	switch t.Protocol {
	case "grpc":
		component = semconv.OTelComponentTypeOtlpGRPCSpanExporter
	case "zipkin":
		component = semconv.OTelComponentTypeZipkinHTTPSpanExporter
	}
	name := component.Value.AsString() + "/" + cmp.Or(t.Name, "0")
	attrs := []attribute.KeyValue{attribute.String(attrJournal, dir), component, semconv.OTelComponentName(name)}
	b.add(queueSize, since, uint64(t.Waiting-t.Aside), attrs...)
	b.add(spanInflight, since, uint64(t.Aside), attrs...)
	if t.Since.IsZero() {
		return // nothing was shipped yet
	}
	b.add(spanExported, t.Since, t.Shipped, attrs...)
	for _, reason := range slices.Sorted(maps.Keys(t.Rejected)) {
		b.add(spanExported, t.Since, t.Rejected[reason], append(slices.Clip(attrs), attribute.String(attrError, reason))...)
	}
}
