package state

import (
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Window is a time for which tracing is switched on. It is never changed, but
// replaced.
type Window struct {
	// Trace is its own trace: the id, and that of the root span.
	Trace TraceContext `json:"trace"`
	Began time.Time    `json:"began"`
	Until time.Time    `json:"until,omitzero"` // when it ends by itself
	Ended time.Time    `json:"ended,omitzero"`
}

// holds reports whether the window is open at a time.
func (w *Window) holds(at time.Time) bool {
	return w != nil && w.Ended.IsZero() && (w.Until.IsZero() || at.Before(w.Until))
}

// Root returns the context of the span that what happens at a time belongs under,
// unless nothing is recorded then.
func (st *State) Root(at time.Time) (root trace.SpanContext, recorded bool) {
	switch {
	case !st.Dynamic:
		return st.Trace.SpanContext(), true
	case st.Window.holds(at):
		return st.Window.Trace.SpanContext(), true
	}
	return trace.SpanContext{}, false
}
