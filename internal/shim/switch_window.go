package shim

import (
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
)

// window is a time for which tracing is switched on. It is never changed, but
// replaced.
type window struct {
	// Trace is its own trace: the id, and that of the root span.
	Trace traceContext `json:"trace"`
	Began time.Time    `json:"began"`
	Until time.Time    `json:"until,omitzero"` // when it ends by itself
	Ended time.Time    `json:"ended,omitzero"`
}

// holds tells that the window is open at a time.
func (w *window) holds(at time.Time) bool {
	return w != nil && w.Ended.IsZero() && (w.Until.IsZero() || at.Before(w.Until))
}

// root returns the context of the span that what happens at a time belongs under,
// unless nothing is recorded then.
func (st *state) root(at time.Time) (root trace.SpanContext, recorded bool) {
	switch {
	case !st.Dynamic:
		return st.Trace.spanContext(), true
	case st.Window.holds(at):
		return st.Window.Trace.spanContext(), true
	}
	return trace.SpanContext{}, false
}

// on tells whether anything is recorded now. What has begun before that is recorded
// in any case.
func (s *sandbox) on() bool { return s.switcher == nil || s.switcher.turns.On() }

// root returns the context of the span that what is recorded belongs under: of the
// last window, when none is open.
func (s *sandbox) root() trace.SpanContext { return *s.rootNow.Load() }

// window returns the last window, nil if there has been none.
func (s *sandbox) window() *window {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Window
}

// open begins a window.
func (s *sandbox) open(w *window) {
	root := w.Trace.spanContext()
	s.rootNow.Store(&root)
	if s.agents != nil {
		s.agents.own.SetRoot(root, w.Began)
	}
	s.mu.Lock()
	s.state.Window = w
	s.mu.Unlock()
	s.saveAll()
}

// setWindow changes the window and returns it.
func (s *sandbox) setWindow(change func(*window)) *window {
	s.mu.Lock()
	w := *s.state.Window
	change(&w)
	s.state.Window = &w
	s.mu.Unlock()
	s.saveAll()
	return &w
}

// saveAll writes the state beside the relay's socket and into the bundles of all
// containers, for their delete.
func (s *sandbox) saveAll() {
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.left {
		return
	}
	s.mu.Lock()
	st := s.state
	paths := []string{s.statePath}
	for _, ct := range s.containers {
		if ct.bundle != "" && !ct.gone {
			paths = append(paths, filepath.Join(ct.bundle, stateFile))
		}
	}
	s.mu.Unlock()
	for _, path := range paths {
		if err := st.write(path); err != nil {
			s.log.Warn("whether tracing is on is not known to delete", "error", err)
		}
	}
}

// end ends the window.
func (s *sandbox) end(at time.Time) *window {
	w := s.setWindow(func(w *window) { w.Ended = at })
	if s.agents != nil {
		s.agents.own.EndRoot(at)
	}
	return w
}

// dropped counts the agent's and the runtime's spans that are of a time when tracing was
// off.
func (s *sandbox) dropped(reason collate.Reason, n int) {
	if reason == collate.Off {
		s.unrecorded.Add(uint64(n))
	}
}
