package forwarder

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// sandbox is what the connections of one sandbox share: limits, queue, collator and counters.
type sandbox struct {
	forwarder *Forwarder
	from      listen.Origin // of its first connection
	limits    atomic.Pointer[Limits]
	count     counters

	spans *rate.Limiter // decoded ones
	bytes *rate.Limiter // decoded ones
	reads *rate.Limiter // bytes off the wire
	opens *rate.Limiter // connections
	cpu   *budget

	spares sync.Pool // spans for reuse

	queue       chan item // nil: no connection yet
	queued      atomic.Int64
	queuedBytes atomic.Int64

	collator atomic.Pointer[collate.Collator]
	talking  int // open connections that have sent spans; for deliver

	// Guarded by the Forwarder:
	kept bool // the collator lasts beyond its connections
	open map[*connection]struct{}
	idle time.Time // since the last connection left
}

// item is a span on its way to the sink, or the end of a connection.
type item struct {
	conn *connection
	span *span.Span // nil: the end
}

func newSandbox(f *Forwarder, from listen.Origin) *sandbox {
	o := f.opts
	s := &sandbox{
		forwarder: f,
		from:      from,
		spans:     rate.NewLimiter(rate.Limit(o.SpansPerSecond), o.SpanBurst),
		bytes:     rate.NewLimiter(rate.Limit(o.BytesPerSecond), o.ByteBurst),
		reads:     rate.NewLimiter(rate.Limit(o.ReadBytesPerSecond), max(o.ReadBytesPerSecond, maxRead)),
		opens:     rate.NewLimiter(connectionRate, connectionBurst),
		cpu:       newBudget(o.CPUPercent, o.CPUBurst, time.Now()),
		open:      make(map[*connection]struct{}),
		idle:      time.Now(),
	}
	s.count.wire.Losses = losses.New(f.losses)
	s.keepTo(o.Limits)
	return s
}

// keepTo has the sandbox keep to limits from now on.
func (s *sandbox) keepTo(l Limits) {
	l.Wire.Counters = &s.count.wire
	s.limits.Store(&l)
	s.spans.SetLimit(rate.Limit(l.SpansPerSecond))
	s.spans.SetBurst(l.SpanBurst)
	s.bytes.SetLimit(rate.Limit(l.BytesPerSecond))
	s.bytes.SetBurst(l.ByteBurst)
}

// put queues a span unless the queue is full.
func (s *sandbox) put(c *connection, span *span.Span) {
	size := int64(span.Cost())
	if s.queuedBytes.Add(size) <= int64(s.limits.Load().QueuedBytes) {
		s.queued.Add(1)
		select {
		case s.queue <- item{c, span}:
			return
		default:
			s.queued.Add(-1)
		}
	}
	s.queuedBytes.Add(-size)
	s.count.lose(losses.QueueFull)
}

// putEnd queues a connection's end, which must not get lost: it waits for room. The connection
// still counts as open, which bounds the waiting ones.
func (s *sandbox) putEnd(c *connection) {
	select {
	case s.queue <- item{conn: c}:
	case <-s.forwarder.abandon:
	}
}

// closeQueue ends deliver, if it runs.
func (s *sandbox) closeQueue() {
	if s.queue != nil {
		close(s.queue)
	}
}

// maxRun is how many items are handled before their time is charged.
const maxRun = 128

// deliver hands queued items on until the queue is closed.
func (s *sandbox) deliver() {
	for it := range s.queue {
		s.metered(func() { s.run(it) })
		if c := s.collator.Load(); c != nil {
			s.forwarder.opts.Held.Store(int64(c.Held()))
		}
	}
}

// run hands on an item and those queued behind it.
func (s *sandbox) run(it item) {
	for range maxRun {
		s.take(it)
		select {
		case next, open := <-s.queue:
			if !open {
				return
			}
			it = next
		default:
			return
		}
	}
	s.take(it)
}

// metered charges the sandbox for f's processor time.
func (s *sandbox) metered(f func()) {
	var m meter
	m.start(time.Now())
	f()
	now := time.Now()
	s.cpu.spend(m.stop(now), now)
}

func (s *sandbox) take(it item) {
	if it.span == nil {
		s.hand(it)
		return
	}
	size := int64(it.span.Cost()) // the sink may change the span
	s.hand(it)
	s.queued.Add(-1)
	s.queuedBytes.Add(-size)
}

// hand places a span or hands it to the sink, unless Close has given up.
func (s *sandbox) hand(it item) {
	defer func() {
		if recover() != nil {
			s.count.lose(losses.Panic)
		}
	}()
	select {
	case <-s.forwarder.abandon:
		if it.span != nil {
			s.count.lose(losses.Shutdown)
		}
		return
	default:
	}
	sink := s.forwarder.opts.Sink
	switch {
	case it.span == nil && sink == nil:
		s.ended(it.conn)
		return
	case it.span == nil:
		sink.Closed(it.conn.info, it.conn.end)
		return
	case sink == nil:
		s.place(it.conn, it.span)
	default:
		sink.Span(it.conn.info, it.span)
	}
	s.count.delivered.Add(1)
}

// forgettable reports whether the sandbox has had no connections for a while and has nothing
// left to deliver.
func (s *sandbox) forgettable() bool {
	return len(s.open) == 0 && s.collator.Load() == nil && time.Since(s.idle) > linger && s.queued.Load() == 0 && len(s.queue) == 0
}

// Limits on opening connections; an agent connects once in its life. The end of a connection
// may place all waiting spans of its VM.
const (
	connectionRate  = 1 // a second
	connectionBurst = 32
)

// linger is how long a sandbox is remembered after its last connection. A guest must not reset
// its limits by connecting again.
const linger = time.Minute

// counts returns the counters with what is open. The caller holds the Forwarder's lock.
func (s *sandbox) counts() Counts {
	n := s.count.counts()
	n.Connections = len(s.open)
	n.Queued = int(s.queued.Load())
	return n
}
