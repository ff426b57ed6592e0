package collate

import (
	"crypto/rand"
	"math"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// Collator places the agent's and the runtime's spans of one sandbox. It is safe for
// concurrent use; Call, Own, Cause and Request never wait for the others.
type Collator struct {
	opts  Options
	began int64 // Options.Began, math.MinInt64 if that is not known
	calls *calls

	mu           sync.Mutex
	roots        roots
	clock        clock
	held         held
	sent         recent[trace.SpanID, sent]
	awaited      map[trace.SpanID]*awaited
	named        recent[trace.SpanID, place]    // as parents, in contexts that were handed out or taken for it
	runtimeRoots recent[trace.SpanID, struct{}] // of the runtime, as its calls name them
	undecided    []*node                        // calls of the runtime that are quiet unless they fail
	guest        recent[trace.TraceID, guestTrace]
	execs        recent[string, string]
	asked        recent[trace.SpanID, asked]
	rpcs         [recentRPCs]interval // the last ones, for strays that come after theirs
	nextRPC      int
	secret       [16]byte // of derived trace ids
	out          batch
	outRuntime   batch
	stack        []toSend // of send
	stats        Stats
}

// sent is what is remembered of a span that got its place.
type sent struct {
	place
	parent trace.SpanID
	end    int64 // by the host's clock
	stale  bool  // contexts that name it may be old: it is the runtime's, and no request
	off    bool  // it is not recorded, though what is below it may be
}

// awaited is a parent that is missing, but whose children were sent.
type awaited struct {
	place
	begin, end uint64 // from the first child's start to the last one's end
	children   int
	host       bool // it is the runtime's
}

// drew tells that a child was drawn.
func (a *awaited) drew(begin, end uint64) {
	if a.children == 0 {
		a.begin, a.end = begin, end
	}
	a.children++
	a.begin, a.end = min(a.begin, begin), max(a.end, end)
}

// guestTrace is what is known of a trace that the guest named.
type guestTrace struct {
	place  place
	placed bool
	// remote: its RPCs come with contexts of somebody's who is not here.
	remote bool
}

// interval is when an RPC was served, by the guest's clock.
type interval struct {
	id         trace.SpanID
	start, end uint64
}

func (i interval) holds(s *span.Span) bool { return i.start <= s.Start && s.End <= i.end }

const (
	// recentRPCs are remembered for roots that arrive after the RPC in which they
	// began: the agent ends them on threads of their own.
	recentRPCs = 32
	// maxStrays bounds the roots that are no RPC and wait for one.
	maxStrays = 256
	// maxExecs bounds the names of execs remembered.
	maxExecs = 256
)

// New returns a Collator of a sandbox.
func New(opts Options) *Collator {
	opts.defaults()
	c := &Collator{
		opts:         opts,
		began:        math.MinInt64,
		calls:        newCalls(opts.MaxCalls),
		held:         newHeld(),
		sent:         newRecent[trace.SpanID, sent](opts.Remember),
		awaited:      make(map[trace.SpanID]*awaited),
		runtimeRoots: newRecent[trace.SpanID, struct{}](maxRoots),
		named:        newRecent[trace.SpanID, place](opts.Remember),
		guest:        newRecent[trace.TraceID, guestTrace](maxTraces),
		execs:        newRecent[string, string](maxExecs),
		asked:        newRecent[trace.SpanID, asked](opts.Remember / 4),
		roots:        roots{{opts.Root, period{math.MinInt64, math.MaxInt64}}},
		out:          newBatch(opts, opts.Resource, ScopeName),
		outRuntime:   newBatch(opts, opts.Runtime, RuntimeScopeName),
	}
	rand.Read(c.secret[:])
	if opts.OnDemand {
		c.roots.last().period = never
	}
	if !opts.Began.IsZero() {
		c.began = opts.Began.UnixNano()
		c.roots.last().start = max(c.roots.last().start, c.began)
	}
	c.calls.setRoot(opts.Root)
	return c
}

// Call tells of a call of the shim, once when it begins and again when it has
// ended, in either order.
func (c *Collator) Call(call Call) { c.calls.tell(call) }

// Own tells that the sandbox uses a trace: its relay hands the trace's contexts to
// the agent, or its runtime does. Spans that come with such a context keep it. The
// traces of Options.Root and of each Call are the sandbox's without being told.
func (c *Collator) Own(id trace.TraceID) { c.calls.setOwn(id) }

// Add takes a span in and owns it from then on. Spans are to be added in the order
// in which they arrive.
func (c *Collator) Add(s *span.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(s, rpcs[s.Name], false)
}

func (c *Collator) add(s *span.Span, rule *rpc, host bool) {
	c.keepPromises()
	c.stats.Added++
	if reason := c.unwanted(s); reason != "" {
		c.drop(reason)
		return
	}
	if s.ParentID == s.SpanID {
		c.stats.Cut++
		s.ParentID = [8]byte{}
	}
	n := c.held.put(s, rule, host)
	n.came = c.opts.Now().UnixNano()
	switch {
	case host && rule.isCall():
		c.learnRoot(n)
	case !host && rule != nil:
		c.remember(n)
		c.gather(n)
	}
	p, expected := c.expected(n.id)
	if a := c.awaited[n.id]; a == nil || a.children > 0 {
		n.needed = expected
	}
	switch {
	case !expected:
		c.settle(n)
	case host && c.opts.Mode == Isolated && (c.awaited[n.id] == nil || !c.awaited[n.id].host):
		// What the guest has below it is in another trace, and remains there.
		if a := c.awaited[n.id]; a != nil && a.children > 0 {
			c.placeholder(n.id, a)
		}
		delete(c.awaited, n.id)
		c.settle(n)
	default:
		c.arrived(n, p)
	}
	for c.held.spans > c.opts.MaxSpans || c.held.bytes > c.opts.MaxBytes {
		c.infer(c.held.trees.Front().Value.(*tree))
	}
}

// unwanted returns why a span is not taken in, if so.
func (c *Collator) unwanted(s *span.Span) Reason {
	id := trace.SpanID(s.SpanID)
	if _, taken := c.ours(id); taken {
		return Collision
	}
	if _, dup := c.sent.get(id); dup {
		return Duplicate
	}
	if n := c.held.nodes[id]; n != nil && n.span != nil {
		return Duplicate
	}
	return ""
}

// Tick gives a place to the spans that have waited for Options.Hold, and sends all
// that have theirs. It is to be called at least once a second while spans arrive
// or wait.
func (c *Collator) Tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepPromises()
	c.decide()
	due := c.opts.Now().Add(-c.opts.Hold).UnixNano()
	for e := c.held.trees.Front(); e != nil && e.Value.(*tree).since <= due; e = c.held.trees.Front() {
		c.infer(e.Value.(*tree))
	}
	c.sendAll()
}

// AgentEnded tells that no more spans of the agent's will come, since its connection
// or its VM is gone. If there are none of the runtime's either, nothing more will
// come at all.
func (c *Collator) AgentEnded() {
	if !c.calls.hasRuntime() {
		c.Ended()
	}
}

// Ended tells that no more spans will come. All that waits is sent, and placeholders
// for the parents that are missing. Should spans be added after all, they are placed
// as before.
func (c *Collator) Ended() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepPromises()
	c.decide()
	for e := c.held.trees.Front(); e != nil; e = c.held.trees.Front() {
		c.infer(e.Value.(*tree))
	}
	c.placeholders()
	c.sendAll()
}

// Stats returns the counts so far.
func (c *Collator) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Held, s.HeldBytes, s.Awaited = c.held.spans, c.held.bytes, len(c.awaited)
	return s
}

func (c *Collator) drop(reason Reason) {
	c.stats.Dropped++
	c.opts.Drop(reason, 1)
}
