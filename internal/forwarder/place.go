package forwarder

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Sandbox returns the collator of a sandbox's VM, kept until Close, for reporting the sandbox's
// calls to it. It is nil if there are too many VMs.
func (f *Forwarder) Sandbox(id string) *collate.Collator {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.share(listen.Origin{Sandbox: id})
	if s == nil {
		return nil
	}
	c := f.collator(s)
	s.kept = c != nil
	return c
}

// collator returns a sandbox's collator, made if needed; nil if there are too many VMs. The
// caller holds the lock.
func (f *Forwarder) collator(s *sandbox) *collate.Collator {
	if c := s.collator.Load(); c != nil {
		return c
	}
	if f.collators >= f.opts.MaxVMs {
		return nil
	}
	o := f.opts.Collation(s.from)
	o.Sink, o.Drop, o.Arrived = f.send, f.dropped(o.Drop), f.wake
	o.Done = func(used *span.Span) {
		if used.Reusable() {
			s.spares.Put(used)
		}
	}
	c := collate.New(o)
	s.collator.Store(c)
	f.collators++
	return c
}

// place gives a span to the collator.
func (s *sandbox) place(conn *connection, span *span.Span) {
	f := s.forwarder
	c := s.collator.Load()
	if c == nil {
		f.mu.Lock()
		c = f.collator(s)
		f.mu.Unlock()
		if c == nil {
			f.losses.Add(losses.VMs, 1)
			return
		}
	}
	if !conn.talks {
		conn.talks = true
		s.talking++
	}
	if f.opts.KeepTraceIDs {
		c.AddTrace(span.TraceID)
	}
	c.Add(span)
}

// ended handles a connection's end: after the last one, the agent has ended.
func (s *sandbox) ended(conn *connection) {
	if conn.talks {
		s.talking--
	}
	c := s.collator.Load()
	if c == nil || s.talking > 0 {
		return
	}
	f := s.forwarder
	f.mu.Lock()
	if !s.kept {
		s.collator.Store(nil)
		f.collators--
	}
	f.mu.Unlock()
	c.AgentEnded()
}

// send is the collators' sink.
func (f *Forwarder) send(resource *resourcepb.Resource, scope string, spans []byte, n int) {
	defer f.survive(n)
	// The journal bounds its own time.
	if err := f.opts.Journal.AppendSpans(resource, scope, spans, n); err != nil {
		f.placed.untaken.Add(uint64(n)) // the journal counts why
		f.opts.Warn(err)
		return
	}
	f.placed.sent.Add(uint64(n))
}

// survive is deferred to recover from a panic, which loses this many spans.
func (f *Forwarder) survive(spans int) {
	if p := recover(); p != nil {
		f.losses.Add(losses.Panic, spans)
		f.opts.Warn(fmt.Errorf("panic, which costs spans: %v\n%s", p, debug.Stack()))
	}
}

// tick is how often waiting spans are placed and losses written while spans arrive or wait.
// idleTick is the same otherwise, for losses that no span announces.
const (
	tick     = 500 * time.Millisecond
	idleTick = time.Minute
)

// Run places waiting spans and writes the counts of lost ones, until ctx is done.
func (f *Forwarder) Run(ctx context.Context) {
	next := time.NewTimer(tick)
	defer next.Stop()
	var seen uint64 // spans, until the last tick
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
			next.Reset(tick)
		case <-next.C:
			f.idle.Store(true) // before it looks: what comes meanwhile is news
			f.each((*collate.Collator).Tick)
			added, held := f.work()
			f.opts.Held.Store(int64(held))
			if err := f.opts.Journal.Flush(); err != nil {
				f.opts.Warn(err)
			}
			if added == seen && held == 0 {
				next.Reset(idleTick)
			} else {
				f.idle.Store(false)
				next.Reset(tick)
			}
			seen = added
		}
	}
}

// wake ends Run's idle pause, since something has arrived.
func (f *Forwarder) wake() {
	if !f.idle.CompareAndSwap(true, false) {
		return
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// work returns how many spans have arrived, and how many wait.
func (f *Forwarder) work() (added uint64, held int) {
	f.each(func(c *collate.Collator) {
		s := c.Stats()
		added, held = added+s.Added, held+s.Held
	})
	return added, held
}

// each calls do for each collator, and charges the sandbox for the processor time.
func (f *Forwarder) each(do func(*collate.Collator)) {
	f.mu.Lock()
	var all []*sandbox
	for _, s := range f.sandboxes {
		all = append(all, s)
	}
	f.mu.Unlock()
	for _, s := range all {
		if c := s.collator.Load(); c != nil {
			s.metered(func() {
				defer f.survive(1) // how many spans it costs is unknown
				do(c)
			})
		}
	}
}
