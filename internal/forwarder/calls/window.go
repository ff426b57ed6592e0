package calls

import (
	"math"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// window is a root span of the sandbox and the period in which spans below it are recorded.
type window struct {
	trace.SpanContext
	Period
}

// windows are a sandbox's windows, the current one last. There is at least one.
type windows []*window

// maxPast bounds the remembered past windows.
const maxPast = 8

func newWindows(opts Options) windows {
	w := &window{opts.Root, always}
	if opts.OnDemand {
		w.Period = never
	}
	if !opts.Began.IsZero() {
		w.Start = max(w.Start, opts.Began.UnixNano())
	}
	return windows{w}
}

func (ws windows) last() *window { return ws[len(ws)-1] }

// begin starts a window with another root.
func (ws *windows) begin(sc trace.SpanContext, at int64) {
	all := *ws
	if last := ws.last(); !last.IsSampled() || last.SpanID() == sc.SpanID() {
		all = all[:len(all)-1] // nothing is below it, or it continues
	} else {
		last.End = min(last.End, at)
	}
	all = append(all, &window{sc, Period{at, math.MaxInt64}})
	*ws = all[max(0, len(all)-1-maxPast):]
}

// at returns the window for what ended at a moment on the host's clock.
func (ws windows) at(end int64) *window {
	for i, past := range ws[:len(ws)-1] {
		if end < ws[i+1].Start {
			return past
		}
	}
	return ws.last()
}

// that returns the latest window whose root satisfies means; nil if there is none.
func (ws windows) that(means func(trace.SpanContext) bool) *window {
	for i := len(ws) - 1; i >= 0; i-- {
		if ws[i].IsValid() && means(ws[i].SpanContext) {
			return ws[i]
		}
	}
	return nil
}

// SetRoot replaces Options.Root: tracing begins anew at a moment. Late spans from before still
// go below the former root.
func (c *Calls) SetRoot(sc trace.SpanContext, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.windows.begin(sc, began.UnixNano())
	c.addTrace(sc.TraceID())
}

// EndRoot ends recording at a moment, until the next SetRoot.
func (c *Calls) EndRoot(ended time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.windows.last().End = ended.UnixNano()
	c.onDemand = true
}

// Root returns the root span for what ended at a moment on the host's clock.
func (c *Calls) Root(end int64) trace.SpanContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.windows.at(end).SpanContext
}

// Draw returns a span's times on the host's clock, and the times at which it is drawn: within
// its window and not after its arrival. It reports false if its time is not recorded. It also
// marks the span's ids that are only claimed.
func (c *Calls) Draw(s *Span, cause *Cause) (was, at Period, recorded bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.markClaims(s)
	was = cause.Shift.period(s.at)
	recorded = !c.onDemand || slices.ContainsFunc(c.windows, func(w *window) bool {
		return w.IsSampled() && w.Start <= was.End && was.Start <= w.End
	})
	w := cause.window
	if w == nil {
		w = c.windows.at(was.End) // the trace may be that of several windows
	}
	limits := Period{c.began, math.MaxInt64}
	if w.Start <= w.End {
		limits = w.Period
	}
	limits.End = min(limits.End, s.Came)
	at.Start = max(0, limits.nearest(was.Start))
	at.End = max(at.Start, limits.nearest(was.End))
	return was, at, recorded
}
