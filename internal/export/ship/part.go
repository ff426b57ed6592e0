package ship

import (
	"slices"
	"strings"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// A part is what one upload contains: spans, and where they are in the journal.
type part []piece

// piece is some or all spans of one resource in one record.
type piece struct {
	spans  *tracepb.ResourceSpans
	record journal.Range
	key    string // of the resource, computed on demand
	// stretch is the same for two records if all records between them belong to the upload too.
	stretch int
}

// appendRecord appends the spans of a record.
func (p part) appendRecord(r journal.Record, t *tracepb.TracesData, stretch int) part {
	at := journal.Range{Position: journal.Position{Segment: r.Segment, Offset: r.Offset}, End: r.End()}
	for _, rs := range t.ResourceSpans {
		p = append(p, piece{spans: rs, record: at, stretch: stretch})
	}
	return p
}

// data returns the spans as a client takes them.
func (p part) data() []*tracepb.ResourceSpans {
	data := make([]*tracepb.ResourceSpans, len(p))
	for i := range p {
		data[i] = p[i].spans
	}
	return data
}

// count returns the number of spans.
func (p part) count() int { return journal.CountSpans(&tracepb.TracesData{ResourceSpans: p.data()}) }

// bytes returns the size of the spans, encoded.
func (p part) bytes() (n int) {
	for i := range p {
		n += proto.Size(p[i].spans)
	}
	return n
}

// ranges returns where the spans are: one range per segment and stretch, which may include
// other spans of the same upload.
func (p part) ranges() (rs []journal.Range) {
	var stretches []int // of the ranges
	for i := range p {
		at := p[i].record
		at.Spans = p[i : i+1].count()
		k := -1
		for n, r := range rs {
			if r.Segment == at.Segment && stretches[n] == p[i].stretch {
				k = n
			}
		}
		if k < 0 {
			rs, stretches = append(rs, at), append(stretches, p[i].stretch)
			continue
		}
		r := &rs[k]
		r.Offset, r.End, r.Spans = min(r.Offset, at.Offset), max(r.End, at.End), r.Spans+at.Spans
	}
	return rs
}

// resources reports whether the spans have more than one resource: several sandboxes,
// or services of one sandbox.
func (p part) resources() bool {
	for i := range p {
		if p[i].key == "" {
			key, err := proto.MarshalOptions{Deterministic: true}.Marshal(p[i].spans.GetResource())
			if err == nil {
				p[i].key = string(key)
			}
		}
	}
	return slices.ContainsFunc(p, func(x piece) bool { return x.key != p[0].key })
}

// split divides p between resources if it has more than one, and otherwise in the
// middle. It reports false for a single span.
func (p part) split() (a, b part, ok bool) {
	if len(p) == 0 {
		return nil, nil, false
	}
	if p.resources() {
		slices.SortStableFunc(p, func(x, y piece) int { return strings.Compare(x.key, y.key) })
		cut := 0
		for i := 1; i < len(p); i++ { // the boundary nearest to the middle
			if p[i].key != p[i-1].key && (cut == 0 || distance(i, len(p)) < distance(cut, len(p))) {
				cut = i
			}
		}
		return p[:cut:cut], p[cut:], true
	}
	if n := len(p); n > 1 {
		return p[: n/2 : n/2], p[n/2:], true
	}
	x, y, ok := journal.Split(&tracepb.TracesData{ResourceSpans: p.data()})
	if !ok {
		return nil, nil, false
	}
	half := func(t *tracepb.TracesData) part {
		return part{{spans: t.ResourceSpans[0], record: p[0].record, key: p[0].key, stretch: p[0].stretch}}
	}
	return half(x), half(y), true
}

func distance(i, n int) int {
	if d := 2*i - n; d > 0 {
		return d
	}
	return n - 2*i
}
