package relay

import (
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// windows is who is told of windows of tracing.
type windows interface {
	Opened(root trace.SpanContext, at time.Time)
	Closed(at time.Time)
}

// On reports whether anything is recorded now. What has begun before that is recorded
// in any case.
func (s *sandbox) On() bool { return s.switcher.turns.On() }

// Root returns the context of the span that what is recorded belongs under: of the
// last window, when none is open.
func (s *sandbox) Root() trace.SpanContext { return *s.rootNow.Load() }

// inLogs returns the context of what is logged now, unsampled if nothing is recorded.
func (s *sandbox) inLogs() trace.SpanContext {
	if !s.On() {
		return trace.SpanContext{}
	}
	return s.Root()
}

// cause returns the context of what caused the pod, invalid if it is not known.
func (s *sandbox) cause() trace.SpanContext {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Cause.SpanContext()
}

// window returns the last window, nil if there has been none.
func (s *sandbox) window() *state.Window {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Window
}

// open begins a window.
func (s *sandbox) open(w *state.Window) {
	root := w.Trace.SpanContext()
	s.rootNow.Store(&root)
	if s.windows != nil {
		s.windows.Opened(root, w.Began)
	}
	s.mu.Lock()
	s.state.Window = w
	s.mu.Unlock()
	s.saveAll()
}

// setWindow changes the window and returns it.
func (s *sandbox) setWindow(change func(*state.Window)) *state.Window {
	s.mu.Lock()
	w := *s.state.Window
	change(&w)
	s.state.Window = &w
	s.mu.Unlock()
	s.saveAll()
	return &w
}

// saveAll writes the state beside the relay's socket and into the bundles of all
// containers, for their delete, and for another process.
func (s *sandbox) saveAll() { s.write(true, "whether tracing is on is not known to delete") }

// end ends the window.
func (s *sandbox) end(at time.Time) *state.Window {
	w := s.setWindow(func(w *state.Window) { w.Ended = at })
	if s.windows != nil {
		s.windows.Closed(at)
	}
	return w
}

// Unrecorded counts spans of others that are of a time when tracing was off.
func (s *sandbox) Unrecorded(spans int) { s.unrecorded.Add(uint64(spans)) }

// Changed implements kata.Sandbox.
func (s *sandbox) Changed() { s.saver.soon() }
