package collate

import (
	"math"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// The guest's times are made the host's (clock, shift), and bounded to what is possible:
// nothing ends after it has arrived, or was before the sandbox, or is drawn outside the
// time that was recorded.

// asked is a request to the agent as the runtime's own span has it.
type asked struct {
	period
	request string // "CreateContainer"
}

// longAfter is how long, in nanoseconds, after its parent's end a span begins that it
// cannot be part of.
const longAfter = int64(250 * time.Millisecond)

func clamped(t uint64) int64 { return int64(min(t, math.MaxInt64)) }

// times are a span's own.
func (n *node) times() period { return period{clamped(n.span.Start), clamped(n.span.End)} }

// hostTime returns a time of the guest's by the host's clock.
func (c *Collator) hostTime(guest uint64) int64 {
	at := clamped(guest)
	return plus(at, c.clock.at(at))
}

// shiftOf returns the shift of a span of the agent's, and learns from it.
func (c *Collator) shiftOf(n *node, in fits) *shift {
	guest, possible := n.times(), period{c.began, n.came}
	if n.rule != nil && n.rule.life {
		return c.clock.life(guest, possible)
	}
	if b := boundsOf(guest, possible); guest.start <= guest.end && b.possible() && !b.has(c.clock.at(middle(guest))) {
		c.clock.learn(middle(guest), b)
	}
	in.host, in.skew = in.host.and(possible), int64(c.opts.Skew)
	if n.rule != nil && n.rule.clock {
		c.clock.set(guest.end)
		return c.clock.fitEnds(guest, in)
	}
	return c.clock.fit(guest, in)
}

// ownShift returns the shift of a span of the agent's by what it names as its parent;
// nil for one of the runtime's.
func (c *Collator) ownShift(n *node) *shift {
	if n.host {
		return nil
	}
	parent := trace.SpanID(n.span.ParentID)
	if above, ok := c.sent.get(parent); ok && above.shift != nil {
		return above.shift // of the request that it is done for
	}
	in := fits{host: always}
	if a, ok := c.asked.get(parent); ok && (n.rule == nil || n.asks(a.request)) {
		in = fits{host: a.period, sure: n.rule != nil} // or of a later Kata
	} else if ours, ok := c.ours(parent); ok && ours.Method != "" {
		in = fits{host: ours.serving(), sure: n.asks(ours.Method) || n.rule != nil && n.rule.once}
	} else if n.request() {
		if m := c.caller(n.rule, n.span); m != nil {
			in = fits{host: m.serving(), sure: m.sure}
		}
	}
	return c.shiftOf(n, in)
}

// asks reports whether the span serves a request to the agent of that name.
func (n *node) asks(request string) bool { return n.rule != nil && n.rule.request == request }

// remembersRequest remembers when the runtime asked the agent for something, by its own
// span. What failed may have been given up, and gone on in the agent.
func (c *Collator) remembersRequest(n *node) {
	request, ok := strings.CutPrefix(n.span.Name, kata.RequestPrefix)
	if !n.host || !ok {
		return
	}
	at := n.times()
	if n.span.Failed {
		at.end = math.MaxInt64
	}
	c.asked.put(n.id, asked{at, request})
}

// belongsLater reports whether a span that is to be drawn with a shift began long after
// what it names as its parent had ended: it is the work of another call.
func (c *Collator) belongsLater(n *node, s *shift, ended int64) bool {
	if c.opts.Mode == Isolated || n.rule != nil && n.rule.life {
		return false
	}
	_, named := c.named.get(n.id)
	return !named && s.of(clamped(n.span.Start)) > plus(ended, longAfter)
}

// when returns when a span was by the host's clock.
func (n *node) when(s *shift) period {
	at := n.times()
	if !n.host {
		at = period{s.of(at.start), s.of(at.end)}
	}
	return period{at.start, max(at.start, at.end)}
}

// draw returns the times at which a span is drawn, of those when it was.
func (c *Collator) draw(n *node, was period, traced *tracedRoot) (at period) {
	limits := period{c.began, math.MaxInt64}
	if traced != nil && traced.start <= traced.end {
		limits = traced.period
	}
	if !n.host {
		limits.end = min(limits.end, n.came)
	}
	at.start = max(0, limits.nearest(was.start))
	at.end = max(at.start, limits.nearest(was.end))
	return at
}

// visible returns a span that is recorded, or what is above it that is.
func (c *Collator) visible(id trace.SpanID) trace.SpanID {
	for range maxDepth {
		s, ok := c.sent.get(id)
		if !ok || !s.off {
			break
		}
		id = s.parent
	}
	return id
}
