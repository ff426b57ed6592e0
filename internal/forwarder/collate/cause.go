package collate

import (
	"math"
	"slices"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Request is a request to the agent that is about to be sent.
type Request struct {
	Method              string // "CreateContainer"
	ContainerID, ExecID string
	// Caller is the context that the request comes with, from a runtime that traces
	// too.
	Caller trace.SpanContext
	// Quiet: its span is recorded only when it fails or is slow.
	Quiet bool
}

// Cause returns the span that a request to the agent belongs under: of the shim's
// calls in flight the one that causes it, else the sandbox's root. If the runtime's
// own spans arrive here, it is that of the runtime which the request names, in the
// trace that it will be put into.
func (c *Collator) Cause(r Request) trace.SpanContext {
	m, ok := c.calls.inFlight(r.Method, r.ContainerID, kata.ExecID(r.ContainerID, r.ExecID))
	cause := m.SpanContext
	if !ok {
		cause = c.calls.rootContext()
	}
	if r.Quiet || ok && c.quietCall(&m) || c.opts.Mode == Isolated || !cause.IsSampled() || !r.Caller.IsValid() {
		return cause
	}
	p := place{trace: cause.TraceID(), top: cause.SpanID()}
	if !c.calls.promise(r.Caller, promise{id: r.Caller.SpanID(), place: p}) {
		return cause
	}
	return cause.WithSpanID(r.Caller.SpanID())
}

// Moves tells that what is in a trace of the runtime's is put into others.
func (c *Collator) Moves(id trace.TraceID) bool {
	return c.opts.Mode == Collated && c.calls.isRuntime(id)
}

// Request tells of a request to the agent, once when it has been sent and again when
// it has ended, as Call does of a call. caller is Request.Caller.
func (c *Collator) Request(call Call, caller trace.SpanContext) {
	c.calls.tellRequest(call)
	if !call.End.IsZero() && caller.IsValid() && call.SpanContext.IsSampled() && !call.Quiet {
		c.calls.promise(caller, promise{id: caller.SpanID(), begin: call.Start.UnixNano(), end: call.End.UnixNano()})
	}
}

// QuietRequests returns the requests to the agent that only quiet methods of the shim
// cause.
func QuietRequests(quiet []string) (requests []string) {
	o := Options{Quiet: quiet}
	o.defaults()
	c := Collator{opts: o}
	for name, r := range byRequest {
		if c.quietRPC(r) {
			requests = append(requests, name)
		}
	}
	return requests
}

// promise is what requests say of spans of the runtime's that have not arrived: that
// there is a span below, recorded from begin to end, or, first, which place it has.
type promise struct {
	id         trace.SpanID
	place      place
	begin, end int64
}

// maxPromises bounds those that have not been looked at yet.
const maxPromises = 4096

// promise keeps a promise for the Collator, whose lock a request cannot wait for. It
// reports false if the context is not of the runtime's, has been promised to be in another
// trace, or is an old one: where the Go runtime does not trace any more, its requests go on
// to name what it did last.
func (cs *calls) promise(caller trace.SpanContext, p promise) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if _, ok := cs.runtime.get(caller.TraceID()); !ok || len(cs.promises) >= maxPromises {
		return false
	}
	if in := p.place.trace; in.IsValid() {
		_, stale := cs.stale.get(p.id)
		other, promised := cs.promised.get(p.id)
		if stale || promised && other != in {
			return false
		}
		cs.promised.put(p.id, in)
	}
	cs.promises = append(cs.promises, p)
	return true
}

// keepPromises remembers what the runtime's spans are expected to be.
func (c *Collator) keepPromises() {
	for _, p := range c.calls.takePromises() {
		if p.place.trace.IsValid() {
			c.named.put(p.id, p.place)
			continue
		}
		named, ok := c.named.get(p.id)
		if _, here := c.sent.get(p.id); here || !ok {
			continue
		}
		if n := c.held.nodes[p.id]; n != nil && n.span != nil {
			continue
		}
		a := c.awaited[p.id]
		if a == nil {
			// The request has been sent: its parent is due, whatever the guest has missing.
			if len(c.awaited) >= 2*c.opts.MaxAwaited {
				continue
			}
			a = &awaited{place: named, host: true}
			c.awaited[p.id] = a
		}
		a.drew(uint64(p.begin), uint64(p.end))
	}
}

func (cs *calls) takePromises() []promise {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	all := cs.promises
	cs.promises = nil
	return all
}

func (cs *calls) tellRequest(c Call) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.create(&c)
	if c.SpanContext.IsValid() {
		cs.put(c, &cs.requests)
	}
}

// inFlight returns the open call that causes a request: of several for the same
// container the last that has not caused one like it.
func (cs *calls) inFlight(request, container, exec string) (call, bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	r := byRequest[request]
	var best *call
	var bestRank int
	look := func(ring *callRing) {
		for _, c := range ring.all {
			k := kin(c, container, exec)
			if c.end != math.MaxInt64 || k == strangers {
				continue
			}
			rank := 2 * int(k)
			if k > unsaid && !slices.Contains(c.seen, request) {
				rank++
			}
			if best == nil || rank > bestRank || rank == bestRank && c.start > best.start {
				best, bestRank = c, rank
			}
		}
	}
	if r != nil {
		for _, method := range r.methods {
			if ring := cs.byMethod[method]; ring != nil {
				look(ring)
			}
		}
	} else {
		for method, ring := range cs.byMethod {
			if causes[method] {
				look(ring)
			}
		}
	}
	if best == nil {
		return call{}, false
	}
	best.see(request)
	return *best, true
}

func (cs *calls) setRoot(root trace.SpanContext) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.root = root
	if root.IsValid() {
		cs.own.put(root.TraceID(), struct{}{})
	}
}

func (cs *calls) rootContext() trace.SpanContext {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.root
}
