package kata

import (
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/middleware"
)

// quietOver is how many quiet calls that are over are remembered: a request to the
// agent is known to be of note moments after the runtime has its answer, and by then
// the call that caused it may have been answered as well.
const quietOver = 32

// quietCalls remembers quiet calls as long as what they cause may turn out to be of
// note. They are bounded by what the relay of the calls remembers.
type quietCalls struct {
	mu   sync.Mutex
	open map[trace.SpanID]*middleware.Call
	over [quietOver]*middleware.Call
	next int
}

func (q *quietCalls) began(c *middleware.Call) {
	if !c.Quiet() || !c.SpanContext().IsSampled() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open == nil {
		q.open = make(map[trace.SpanID]*middleware.Call)
	}
	q.open[c.SpanContext().SpanID()] = c
}

func (q *quietCalls) ended(c *middleware.Call) {
	q.mu.Lock()
	defer q.mu.Unlock()
	id := c.SpanContext().SpanID()
	if q.open[id] == nil {
		return
	}
	delete(q.open, id)
	q.over[q.next] = c
	q.next = (q.next + 1) % quietOver
}

// keep has the call recorded whose span has the id, if it is a quiet one.
func (q *quietCalls) keep(id trace.SpanID) {
	if c := q.find(id); c != nil {
		c.Keep()
	}
}

func (q *quietCalls) find(id trace.SpanID) *middleware.Call {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c := q.open[id]; c != nil {
		return c
	}
	for _, c := range q.over {
		if c != nil && c.SpanContext().SpanID() == id {
			return c
		}
	}
	return nil
}
