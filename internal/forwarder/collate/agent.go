package collate

import (
	"math"

	"go.opentelemetry.io/otel/trace"
)

// agent is the source in the VM. Its requests name the caller's span as their parent, or none.
// What it does on its own threads are roots that begin within a request, which usually arrives
// later.
type agent struct {
	*source
	requests [recentRequests]interval // the last ones, for threads that arrive later
	next     int
}

// interval is when a request was served, by the guest's clock.
type interval struct {
	id         trace.SpanID
	start, end uint64
}

func (i interval) holds(n *node) bool { return i.start <= n.Start && n.End <= i.end }

const (
	// recentRequests are remembered for roots that arrive after the request in which they
	// began.
	recentRequests = 32
	// maxThreads bounds the roots that wait for their request.
	maxThreads = 256
)

// begins registers a request, and joins to it the waiting threads that began within it.
func (a *agent) begins(n *node) {
	if !a.HoldsThreads(&n.Span) {
		return
	}
	in := interval{n.id, n.Start, n.End}
	a.requests[a.next%recentRequests] = in
	a.next++
	for top := range a.waiting.threads {
		if in.holds(top) {
			a.waiting.join(top, n, a.now())
		}
	}
}

// alone implements origin.
func (a *agent) alone(*node) bool { return false }

// root implements origin.
func (a *agent) root(n *node) {
	if !n.IsThread() || a.opts.Isolated || !a.waits(n) {
		a.place(n)
	}
}

// place implements origin.
func (a *agent) place(n *node) {
	cause := a.cause(n)
	a.rememberTrace(n.TraceID, cause)
	a.send(n, cause, cause.Parent)
}

// waits places a thread below the request that encloses it, or lets it wait for one. It reports
// false if the thread must be placed at once.
func (a *agent) waits(n *node) bool {
	shortest := uint64(math.MaxUint64)
	var in *interval
	for i := range min(a.next, recentRequests) {
		if r := &a.requests[i]; r.holds(n) && r.end-r.start < shortest {
			in, shortest = r, r.end-r.start
		}
	}
	if in != nil {
		if request, ok := a.lookup(in.id); ok && !a.isBelow(in.id, n.id) {
			a.send(n, request.Cause, in.id)
			return true
		}
		if request := a.waiting.nodes[in.id]; request != nil && a.waiting.join(n, request, a.now()) {
			return true
		}
	}
	if len(a.waiting.threads) >= maxThreads {
		return false
	}
	a.waiting.hold(n, a.now())
	a.waiting.threads[n] = struct{}{}
	return true
}

// fromAbove implements origin. The parent that a request names is its caller's; the trace tells
// whether the caller is the runtime.
func (a *agent) fromAbove(n *node) bool {
	if parent, known := a.above.lookup(n.ParentID); known {
		if a.opts.Isolated {
			a.detach(n)
			return true
		}
		if parent.Drop == "" && a.above.sent.Has(n.ParentID) {
			if cause, ok := a.Instead(&n.Span); ok {
				cause = a.orOwnTrace(cause, n.TraceID)
				a.send(n, cause, cause.Parent)
				return true
			}
		}
		a.follow(n, parent)
		return true
	}
	if !n.IsRequest() {
		return false
	}
	switch runtimes := a.IsRuntime(n.TraceID); {
	case runtimes && a.opts.Isolated:
		a.detach(n)
	case runtimes, a.has(n.ParentID):
		return false
	case a.HasTrace(n.TraceID):
		cause, parent := a.Within(&n.Span)
		a.rememberTrace(n.TraceID, cause)
		a.send(n, cause, parent)
	default:
		if t, _ := a.traces.Get(n.TraceID); !t.foreign {
			return false
		}
		a.root(n)
	}
	return true
}
