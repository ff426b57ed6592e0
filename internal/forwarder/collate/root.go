package collate

import (
	"math"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// tracedRoot is a root span of the sandbox, and the time in which what is below it is recorded.
type tracedRoot struct {
	trace.SpanContext
	period
}

// roots are those that a sandbox has had, the present one last. There is one at least.
type roots []*tracedRoot

// maxPast bounds the former ones that are remembered.
const maxPast = 8

func (r roots) last() *tracedRoot { return r[len(r)-1] }

// begin has another root from a moment on.
func (r *roots) begin(sc trace.SpanContext, at int64) {
	all := *r
	if last := r.last(); !last.IsSampled() || last.SpanID() == sc.SpanID() {
		all = all[:len(all)-1] // nothing is below it, or it goes on
	} else {
		last.end = min(last.end, at)
	}
	all = append(all, &tracedRoot{sc, period{at, math.MaxInt64}})
	*r = all[max(0, len(all)-1-maxPast):]
}

// at returns the root of what ended at a moment by the host's clock.
func (r roots) at(end int64) *tracedRoot {
	for i, past := range r[:len(r)-1] {
		if end < r[i+1].start {
			return past
		}
	}
	return r.last()
}

// that returns the root that is meant, nil if none is.
func (r roots) that(means func(trace.SpanContext) bool) *tracedRoot {
	for i := len(r) - 1; i >= 0; i-- {
		if r[i].IsValid() && means(r[i].SpanContext) {
			return r[i]
		}
	}
	return nil
}

// SetRoot changes Options.Root: the sandbox is traced anew, from a moment on. Spans that
// come late of what was over before go below the root that was then.
func (c *Collator) SetRoot(sc trace.SpanContext, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots.begin(sc, began.UnixNano())
	c.calls.setRoot(sc)
}

// EndRoot tells that from a moment on nothing is recorded, until SetRoot.
func (c *Collator) EndRoot(ended time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roots.last().end = ended.UnixNano()
}

// records reports whether anything of a time is recorded.
func (c *Collator) records(p period) bool {
	if !c.opts.OnDemand {
		return true
	}
	for _, r := range c.roots {
		if r.IsSampled() && r.start <= p.end && p.start <= r.end {
			return true
		}
	}
	return false
}
