package collate

import "go.opentelemetry.io/otel/trace"

// requests are the periods of the agent's last requests, for spans that the agent made on
// threads of its own meanwhile.
type requests struct {
	last [32]interval
	next int
}

// interval is when a request was served, by the guest's clock.
type interval struct {
	id         trace.SpanID
	start, end uint64
}

func (i interval) holds(n *node) bool { return i.start <= n.Start && n.End <= i.end }

func (r *requests) add(n *node) interval {
	in := interval{n.id, n.Start, n.End}
	r.last[r.next%len(r.last)] = in
	r.next++
	return in
}

// enclosing returns the shortest request that encloses a span, nil if there is none.
func (r *requests) enclosing(n *node) (in *interval) {
	for i := range min(r.next, len(r.last)) {
		if other := &r.last[i]; other.holds(n) && (in == nil || other.end-other.start < in.end-in.start) {
			in = other
		}
	}
	return in
}
