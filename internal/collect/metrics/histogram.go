package metrics

import (
	"maps"
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

const (
	// scale is that of the histograms: 8 buckets for each doubling, so a value is known to
	// 9 %. It never changes, so that counts of several processes add up.
	scale = 3
	// shortest and longest bound what is told apart, in seconds, and with that the buckets.
	shortest, longest = 1e-6, 1e6
	// maxExemplars bounds the exemplars of a histogram: the latest starts.
	maxExemplars = 8
)

// histogram is an exponential histogram of durations in seconds.
type histogram struct {
	Count   uint64         `json:"count"`
	Sum     float64        `json:"sum"`
	Min     float64        `json:"min"`
	Max     float64        `json:"max"`
	Buckets map[int]uint64 `json:"buckets"` // by index, in OpenTelemetry's meaning

	exemplars []metricdata.Exemplar[float64]
}

// bucket returns the index of a value's bucket: it is in (base^index, base^(index+1)], with
// base = 2^(2^-scale).
func bucket(v float64) int {
	v = max(shortest, min(v, longest))
	return int(math.Ceil(math.Ldexp(math.Log2(v), scale))) - 1
}

func (h *histogram) add(v float64, e metricdata.Exemplar[float64]) {
	if h.Buckets == nil {
		h.Buckets, h.Min = make(map[int]uint64), v
	}
	h.Count++
	h.Sum += v
	h.Min, h.Max = min(h.Min, v), max(h.Max, v)
	h.Buckets[bucket(v)]++
	if h.exemplars = append(h.exemplars, e); len(h.exemplars) > maxExemplars {
		h.exemplars = slices.Delete(h.exemplars, 0, 1)
	}
}

// point returns the histogram as a data point.
func (h *histogram) point(since, now time.Time) metricdata.ExponentialHistogramDataPoint[float64] {
	p := metricdata.ExponentialHistogramDataPoint[float64]{
		StartTime: since, Time: now, Count: h.Count, Sum: h.Sum, Scale: scale,
		Min: metricdata.NewExtrema(h.Min), Max: metricdata.NewExtrema(h.Max), Exemplars: slices.Clone(h.exemplars),
	}
	indexes := slices.Sorted(maps.Keys(h.Buckets))
	if len(indexes) == 0 {
		return p
	}
	first := indexes[0]
	p.PositiveBucket.Offset = int32(first)
	p.PositiveBucket.Counts = make([]uint64, indexes[len(indexes)-1]-first+1)
	for _, i := range indexes {
		p.PositiveBucket.Counts[i-first] = h.Buckets[i]
	}
	return p
}
