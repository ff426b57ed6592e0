package calls

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/internal/kata"
)

// Reason says why a span is not sent.
type Reason string

const (
	// Quiet: its call is recorded only if it fails or is slow. Such a span is unwanted, not
	// lost.
	Quiet Reason = "quiet"
	// Unsampled: its trace is not recorded.
	Unsampled Reason = "unsampled"
)

// unremarkable reports whether a span is dropped because its cause is quiet, and neither failed
// nor slow. The agent does not say whether its request failed; the call does.
func (c *Calls) unremarkable(s *Span, caused *call) bool {
	switch {
	case caused == nil && !c.quietRequest(s.request) && !c.isQuiet(s.method),
		caused != nil && (!caused.Quiet || caused.Failed || c.slowCall(caused)),
		c.slow(s) && (caused == nil || !kata.Waits(caused.Method)):
		return false
	}
	return true
}

// Rules say what is quiet; see Options.
type Rules struct {
	Quiet      []string
	Slow       time.Duration
	QuietSpans []string
}

// SetRules replaces the rules. Calls that have begun keep what they began with.
func (c *Calls) SetRules(r Rules) {
	r.Quiet = slices.Clone(r.Quiet)
	for i, m := range r.Quiet {
		r.Quiet[i] = m[strings.LastIndexByte(m, '/')+1:]
	}
	c.rules.Store(&r)
}

func (c *Calls) isQuiet(method string) bool { return slices.Contains(c.rules.Load().Quiet, method) }

// quietRequest reports whether only quiet calls can cause a request.
func (c *Calls) quietRequest(r *kata.Request) bool {
	return r != nil && len(r.CausedBy) > 0 && !slices.ContainsFunc(r.CausedBy, func(m string) bool { return !c.isQuiet(m) })
}

// QuietSpan reports whether a runtime's span is dropped for its name.
func (c *Calls) QuietSpan(s *Span) bool {
	if s.guest || s.Failed || !slices.Contains(c.rules.Load().QuietSpans, s.Name) {
		return false
	}
	return kata.Waits(strings.TrimPrefix(s.Name, kata.RequestPrefix)) || !c.slow(s)
}

// slow reports whether a span is recorded for its duration.
func (c *Calls) slow(s *Span) bool {
	slow := c.rules.Load().Slow
	return slow > 0 && s.End > s.Start && s.End-s.Start > uint64(slow)
}

// slowCall reports whether a call is recorded for its duration.
func (c *Calls) slowCall(caused *call) bool {
	end := caused.End
	if end.IsZero() {
		end = c.opts.Now()
	}
	slow := c.rules.Load().Slow
	return slow > 0 && end.Sub(caused.Start) > slow && !kata.Waits(caused.Method)
}

// recorded reports whether a call's span is, or will be, sent.
func (c *Calls) recorded(caused *call) bool {
	return caused.SpanContext.IsSampled() && (caused.Failed || c.slowCall(caused) || !caused.Quiet)
}

// Pending reports whether a runtime's span serves a quiet call that is still open and so may
// fail: the runtime sends its span before it answers.
func (c *Calls) Pending(s *Span) bool {
	if !s.IsCall() || !c.isQuiet(s.method) || kata.Waits(s.method) || c.slow(s) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	served := c.serving(s)
	return served != nil && served.end == math.MaxInt64
}
