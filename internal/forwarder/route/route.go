package route

import (
	"slices"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// batch is the content of one post: of one process, and so of one sandbox.
type batch struct {
	parcel
	from    *peer     // nil: the connection is not known
	service string    // what the process calls itself
	sandbox string    // that a span names; empty if none does
	traces  []traceID // of the spans
}

// maxBatchTraces bounds the traces looked at in a batch.
const maxBatchTraces = 64

// newBatch makes a batch of spans, without those that are too large.
func (r *Router) newBatch(p *peer, service string, spans []span.Span) *batch {
	b := &batch{from: p, service: service}
	for i := range spans {
		s := &spans[i]
		var fits bool
		if b.messages, fits = appendSpan(b.messages, s); !fits {
			r.lose(losses.TooLarge, 1)
			continue
		}
		b.spans++
		if b.sandbox == "" {
			b.sandbox = s.Sandbox
		}
		if len(b.traces) < maxBatchTraces && !slices.Contains(b.traces, s.TraceID) {
			b.traces = append(b.traces, s.TraceID)
		}
	}
	b.messages = slices.Clip(b.messages)
	return b
}

// list registers a relay's claim.
func (r *Router) list(c *relay, said claim) {
	processes := processesOf(r.opts.proc, said.Processes, said.Started)
	r.mu.Lock()
	if !r.relays[c] { // it has left
		r.mu.Unlock()
		release(processes)
		return
	}
	release(c.processes)
	c.processes = processes
	r.unlist(c)
	c.sandbox = said.Sandbox
	r.sandbox[c.sandbox] = append(r.sandbox[c.sandbox], c)
	service := serviceOf(c.sandbox)
	r.service[service] = append(r.service[service], c)
	r.mu.Unlock()
	r.lookAgain(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.releaseHeld()
}

// unlist undoes list. The caller holds the lock.
func (r *Router) unlist(c *relay) {
	remove := func(from map[string][]*relay, key string) {
		rest := slices.DeleteFunc(from[key], func(o *relay) bool { return o == c })
		if len(rest) == 0 {
			delete(from, key)
			return
		}
		from[key] = rest
	}
	if c.sandbox != "" {
		remove(r.sandbox, c.sandbox)
		remove(r.service, serviceOf(c.sandbox))
	}
}

// serviceOf returns the service name of a sandbox's runtime-rs.
func serviceOf(sandbox string) string { return kata.RustService + sandbox[:min(8, len(sandbox))] }

// whose returns the relay of the batch's sandbox, nil if it is not known. proven is
// whether the process proves it, rather than the post saying so. The caller holds the
// lock.
func (r *Router) whose(b *batch) (c *relay, proven bool) {
	if b.from != nil && b.from.owner != nil && r.relays[b.from.owner] {
		return b.from.owner, true
	}
	if all := r.service[b.service]; len(all) > 0 {
		last := all[len(all)-1]
		if !slices.ContainsFunc(all, func(o *relay) bool { return o.sandbox != last.sandbox }) {
			return last, false
		}
	}
	for _, id := range b.traces {
		if t, ok := r.traces[id]; ok {
			return t.relay, false
		}
	}
	if all := r.sandbox[b.sandbox]; len(all) > 0 {
		return all[len(all)-1], false
	}
	return nil, false
}

// teaching says which relay's sandbox a trace belongs to, and whether that is
// proven.
type teaching struct {
	relay  *relay
	proven bool
}

// maxTraces bounds the traces remembered per sandbox; the first ones are kept. The Go
// runtime has one; runtime-rs is known by its service.
const maxTraces = 64

// learn remembers that the batch's traces belong to the relay's sandbox, and reports
// whether that was new. What is proven overrides what is only said. The caller holds the
// lock.
func (r *Router) learn(b *batch, c *relay, proven bool) (news bool) {
	for _, id := range b.traces {
		t, known := r.traces[id]
		if known && (t.proven || !proven) {
			continue
		}
		if t.relay != c {
			if len(c.traces) == maxTraces {
				return news
			}
			c.traces = append(c.traces, id)
		}
		r.traces[id] = teaching{c, proven}
		news = true
	}
	return news
}

// assign gives a batch to its relay, after held batches that it identifies, or holds it.
// The caller holds the lock.
func (r *Router) assign(b *batch) {
	c, proven := r.whose(b)
	if c == nil {
		r.hold(b)
		return
	}
	if r.learn(b, c, proven) || b.from != nil && b.from.held > 0 {
		r.releaseHeld()
	}
	r.give(c, b)
}

// give queues a batch for its relay. The caller holds the lock.
func (r *Router) give(c *relay, b *batch) {
	if !c.enqueue(b.parcel) {
		r.lose(losses.QueueFull, b.spans)
	}
}
