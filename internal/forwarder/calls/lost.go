package calls

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Lost is what its children tell of a span that has not arrived.
type Lost struct {
	request         *kata.Request
	named           bool // it is a request, or a span as long as the agent's life
	guest           bool
	container, exec string
	trace           trace.TraceID // its first child's
	start, end      uint64
}

// Child takes in a child.
func (l *Lost) Child(s *Span) {
	if !l.trace.IsValid() {
		l.guest, l.trace, l.start, l.end = s.guest, s.TraceID, s.Start, s.End
	}
	if parent := kata.ParentSpan(s.Name); parent != "" && s.guest && !l.named {
		l.request = requests[parent]
		l.named = l.request != nil || isLifeLong(parent)
	}
	l.start, l.end = min(l.start, s.Start), max(l.end, s.End)
}

// Trace returns the trace of its first child.
func (l *Lost) Trace() trace.TraceID { return l.trace }

// IDs takes in the ids of what is below, those of the nearest first. It reports whether
// they are known.
func (l *Lost) IDs(s *Span) bool {
	if l.container == "" {
		l.container, l.exec = s.ContainerID, s.ExecID
	}
	return l.container != ""
}

// OfLost returns the cause of a span that has not arrived: by what its children's
// names and ids say, else the one that its trace has had before, else by the time.
func (c *Calls) OfLost(l Lost, before *Cause) (cause Cause) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.opts.Isolated {
		cause = c.ofLost(&l, before)
	}
	if c.quietRequest(l.request) && l.end-l.start <= uint64(c.opts.Slow) {
		cause.Drop = Quiet
	}
	if c.owns(l.trace) && cause.Trace.IsValid() && cause.Trace != l.trace {
		// It stays where it is; only what it is below must be in the same trace.
		return c.within(l.trace, c.hostTime(l.end))
	}
	return cause
}

func (c *Calls) ofLost(l *Lost, before *Cause) (cause Cause) {
	at := Period{clamped(l.start), clamped(l.end)}
	if !l.guest {
		cause, _ = c.at(at, closeEnough, l.container)
		return cause
	}
	var m *match
	if l.request != nil {
		if m = c.match(l.request, l.container, l.exec, at); m != nil && !c.recorded(m.call) {
			m = nil
		}
	}
	switch {
	case m != nil && m.likeness > noIDs:
		return c.below(m.call)
	case before != nil && before.Drop == "":
		return *before
	case m != nil:
		return c.below(m.call)
	case l.named:
		return c.root(c.hostTime(l.end))
	}
	cause, _ = c.at(Period{c.hostTime(l.start), c.hostTime(l.end)}, int64(c.opts.Skew), l.container)
	return cause
}
