package metrics

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// TestHistogram compares with the SDK's own histogram of the same scale.
func TestHistogram(t *testing.T) {
	values := []float64{shortest, 1, 2, 4, 0.5, math.Nextafter(1, 2), math.Nextafter(1, 0), 3600}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		values = append(values, math.Exp(r.Float64()*16-8))
	}
	manual := sdkmetric.NewManualReader()
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(manual), sdkmetric.WithView(sdkmetric.NewView(
		sdkmetric.Instrument{Name: "*"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 400, MaxScale: scale}},
	)))
	defer func() { _ = provider.Shutdown(t.Context()) }()
	theirs, err := provider.Meter("x").Float64Histogram("x")
	if err != nil {
		t.Fatal(err)
	}
	ours := new(histogram)
	for _, v := range values {
		theirs.Record(t.Context(), v)
		ours.add(v, metricdata.Exemplar[float64]{Value: v})
	}
	var rm metricdata.ResourceMetrics
	if err := manual.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	want := rm.ScopeMetrics[0].Metrics[0].Data.(metricdata.ExponentialHistogram[float64]).DataPoints[0]
	got := ours.point(time.Time{}, time.Time{})
	if got.Scale != want.Scale || got.Count != want.Count || math.Abs(got.Sum-want.Sum) > 1e-6*want.Sum || got.Min != want.Min || got.Max != want.Max {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	at := func(p metricdata.ExponentialHistogramDataPoint[float64]) map[int]uint64 {
		all := make(map[int]uint64)
		for i, n := range p.PositiveBucket.Counts {
			if n > 0 {
				all[i+int(p.PositiveBucket.Offset)] = n
			}
		}
		return all
	}
	for i, n := range at(want) {
		if at(got)[i] != n {
			t.Errorf("bucket %d has %d, want %d", i, at(got)[i], n)
		}
	}
	if len(at(got)) != len(at(want)) {
		t.Errorf("%d buckets, want %d", len(at(got)), len(at(want)))
	}
	if n := len(got.Exemplars); n != maxExemplars || got.Exemplars[n-1].Value != values[len(values)-1] {
		t.Errorf("exemplars %v", got.Exemplars)
	}
}

// TestHistogramBounds: no value makes more buckets than there may be.
func TestHistogramBounds(t *testing.T) {
	h := new(histogram)
	for _, v := range []float64{0, -1, math.Inf(1), math.MaxFloat64, math.SmallestNonzeroFloat64, 1e300} {
		h.add(v, metricdata.Exemplar[float64]{})
	}
	if p := h.point(time.Time{}, time.Time{}); len(p.PositiveBucket.Counts) > 400 || p.Count != 6 {
		t.Errorf("%d buckets of %d values", len(p.PositiveBucket.Counts), p.Count)
	}
	if p := new(histogram).point(time.Time{}, time.Time{}); p.Count != 0 || slices.Max(append(p.PositiveBucket.Counts, 0)) != 0 {
		t.Errorf("of nothing: %+v", p)
	}
}
