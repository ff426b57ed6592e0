package collate

import (
	"math"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// The runtime has spans of its own, in traces that know nothing of ours: one for all
// of the sandbox's life (the Go runtime), or one for some of its work each
// (runtime-rs). Those that are calls of the shim, as the runtime serves them, are put
// below the calls; what is below them follows, requests to the agent included. Their
// common parent lasts as long as the sandbox, arrives last or never, and keeps only
// what is no call.

// AddRuntime takes a span of the sandbox's runtime in and owns it from then on. Spans
// are to be added in the order in which they arrive. The agent's spans that name one
// as their parent follow it, whichever comes first.
func (c *Collator) AddRuntime(s *span.Span) {
	c.calls.setRuntime(s.TraceID)
	method := kata.TaskMethod(s.Method)
	rule := runtimeCalls[method]
	if kata.IsRuntimeRoot(s.Name) {
		rule = lifeLong
	}
	if rule != nil && !c.isQuiet(method) {
		c.calls.setStale(s.SpanID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(s, rule, true)
}

// runtimeCalls are the task service's calls as spans of the runtime.
var runtimeCalls = func() map[string]*rpc {
	m := make(map[string]*rpc)
	for i := range kata.Calls {
		if method := kata.Calls[i].Method; !kata.Calls[i].Sandbox {
			m[method] = &rpc{name: method, methods: []string{method}, call: true}
		}
	}
	return m
}()

// lifeLong is the runtime's own root.
var lifeLong = &rpc{life: true}

// maxRoots bounds the roots remembered; a runtime has one.
const maxRoots = 64

func (r *rpc) isCall() bool { return r != nil && r.call }

// learnRoot takes a call's parent for the runtime's root, unless it is known to be
// something else: the Go runtime puts a pod's later creates below its first.
func (c *Collator) learnRoot(n *node) {
	parent := trace.SpanID(n.span.ParentID)
	if !parent.IsValid() {
		return
	}
	if _, known := c.runtimeRoots.get(parent); known {
		return
	}
	if _, other := c.sent.get(parent); other {
		return
	}
	waiting := c.held.nodes[parent]
	if waiting != nil && waiting.span != nil {
		return
	}
	c.runtimeRoots.put(parent, struct{}{})
	c.calls.setStale(parent)
	if waiting == nil {
		return
	}
	c.held.uproot(waiting.tree)
	c.held.drop(waiting)
	for _, child := range waiting.children() {
		c.settle(child)
	}
}

// standsAlone tells that the place of a span of the runtime's does not follow from its
// parent's.
func (c *Collator) standsAlone(n *node) bool {
	_, below := c.runtimeRoots.get(n.span.ParentID)
	return below || n.rule.isCall() || c.quietSpan(n.span)
}

// quietSpan tells that a span of the runtime's is dropped for its name.
func (c *Collator) quietSpan(s *span.Span) bool {
	if !slices.Contains(c.opts.QuietSpans, s.Name) || s.Failed {
		return false
	}
	return kata.Waits(strings.TrimPrefix(s.Name, kata.RequestPrefix)) || !c.slow(s)
}

// runtimeRoot places a span of the runtime's that stands alone.
func (c *Collator) runtimeRoot(n *node) {
	if c.undecidable(n) {
		c.held.plant(n, c.opts.Now().UnixNano())
		c.undecided = append(c.undecided, n)
		return
	}
	c.alone(n)
}

// alone places such a span by what is known by now.
func (c *Collator) alone(n *node) {
	at := c.runtimeSpot(n)
	if c.opts.Mode == Collated || at.drop != "" || !at.parent.IsValid() {
		c.sendTo(n, at)
		return
	}
	waiting := c.held.nodes[at.parent]
	if waiting != nil && waiting.top() != n {
		// What waits there follows, since n cannot.
		c.inferAt(waiting.top().tree, &at.place)
		waiting = nil
	}
	above, known := c.placeOf(at.parent)
	if waiting != nil || known && (above.trace != at.trace || c.belowItself(n.id, at.parent)) {
		c.stats.Cut++
		at.parent = trace.SpanID{}
	} else if !known {
		n.link = at.link
		c.await(n, at.parent, at.place, true)
		return
	}
	c.sendTo(n, at)
}

// runtimeSpot returns where a span of the runtime's belongs that stands alone.
func (c *Collator) runtimeSpot(n *node) spot {
	s := n.span
	if c.quietSpan(s) {
		return spot{place: place{drop: Quiet}}
	}
	var served *match
	if n.rule.isCall() {
		if m, ok := c.calls.servedBy(n); ok {
			served = &match{call: m}
		}
		if reason := c.quietness(n.rule, s, served); reason != "" {
			return spot{place: place{drop: reason}}
		}
	}
	// A call is at least as slow as its serving.
	recorded := served != nil && (c.recorded(&served.call) ||
		c.slow(s) && !kata.Waits(n.rule.name) && served.SpanContext.IsSampled())
	var at spot
	switch {
	case c.opts.Mode == Isolated:
		// It is the host's, so that it may stay where it says it is.
		at = spot{place: place{trace: s.TraceID, traced: c.roots.at(clamped(s.End))}, parent: s.ParentID}
		if recorded {
			at.link = served.SpanContext
		}
		return at
	case recorded:
		return c.belowCall(&served.call)
	case n.rule != nil:
		return c.sandbox(s.TraceID, int64(s.End))
	}
	at, _ = c.spotAt(int64(s.Start), int64(s.End), closeEnough, s.ContainerID, s.TraceID)
	return at
}

// undecidable tells that a quiet call has not been answered yet, so that it may fail:
// the runtime sends its span before it answers.
func (c *Collator) undecidable(n *node) bool {
	if !n.rule.isCall() || !c.isQuiet(n.rule.name) || kata.Waits(n.rule.name) {
		return false
	}
	m, ok := c.calls.servedBy(n)
	return ok && m.end == math.MaxInt64 && !c.slow(n.span)
}

// decide gives their place to the quiet calls that have been answered since.
func (c *Collator) decide() {
	waiting := c.undecided
	c.undecided = nil
	for _, n := range waiting {
		if c.held.nodes[n.id] == n && n.tree != nil {
			c.runtimeRoot(n)
		}
	}
}

// outlives tells that an RPC was caused by another call than by what it names: where
// the Go runtime does not trace any more, its requests carry the context of what it
// did last, or of its root. It places the RPC if so.
func (c *Collator) outlives(n *node, parent trace.SpanID) bool {
	if above, ok := c.sent.get(parent); n.host || !n.request() || !ok || !above.stale || above.drop != "" {
		return false
	}
	m := c.caller(n.rule, n.span)
	if c.quietness(n.rule, n.span, m) == "" {
		if m == nil || !c.recorded(&m.call) {
			return false
		}
		if where, _ := position(&m.call, c.hostTime(n.span.Start), int64(c.opts.Skew)); where > around {
			return false
		}
	}
	c.sendTo(n, c.spotOf(n))
	return true
}

// isolates tells that a span of the agent's names one of the runtime's, in the trace,
// and must not be in that all the same.
func (c *Collator) isolates(n *node, in trace.TraceID) bool {
	return c.opts.Mode == Isolated && !n.host && c.calls.isRuntime(in)
}

// split places a span by what is known of it without what it names as its parent, to
// which it is linked.
func (c *Collator) split(n *node) {
	at := c.spotOf(n)
	named := c.visible(n.span.ParentID)
	at.link = trace.NewSpanContext(trace.SpanContextConfig{TraceID: n.span.TraceID, SpanID: named})
	if above, ok := c.traceOf(named); ok {
		at.link = at.link.WithTraceID(above)
	}
	c.sendTo(n, at)
}

// awaitRuntime sends an RPC whose parent is the runtime's, and may yet come.
func (c *Collator) awaitRuntime(n *node, parent trace.SpanID) {
	at := c.spotOf(n)
	c.await(n, parent, at.place, true)
}

// closeEnough is how far, in nanoseconds, a runtime's span may stick out of the call
// that it serves: it has whole microseconds.
const closeEnough = int64(1e6)

// servedBy returns the call that a span of the runtime's is the serving of: of those
// of its method and its ids one that holds it whole, and none for which a span of
// this name has been before, if there are others.
func (cs *calls) servedBy(n *node) (call, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if n.served == nil {
		n.served = cs.serve(n)
	}
	if n.served == nil {
		return call{}, false
	}
	return *n.served, true
}

func (cs *calls) serve(n *node) *call {
	ring := cs.byMethod[n.rule.name]
	if ring == nil {
		return nil
	}
	s := n.span
	start, end := int64(s.Start), int64(s.End)
	var best *call
	var bestRank int
	for _, c := range ring.all {
		k := kin(c, s.ContainerID, s.ExecID)
		if where, _ := position(c, start, closeEnough); k == strangers || where > around {
			continue
		}
		rank := 8 * int(k)
		if !slices.Contains(c.seen, s.Name) {
			rank += 4
		}
		if c.start-closeEnough <= start && (c.end == math.MaxInt64 || end <= c.end+closeEnough) {
			rank += 2
		}
		if best == nil || rank > bestRank || rank == bestRank && closer(c, best, start, closeEnough) {
			best, bestRank = c, rank
		}
	}
	if best != nil {
		best.see(s.Name)
	}
	return best
}
