package relay

import (
	"context"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// failed remembers why the sandbox did not start, in case it never does. If it has started,
// and a container in it fails to start, the journal is told of the first such failure.
func (s *sandbox) failed(c *middleware.Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state.RootEnd.IsZero():
		s.lastError = c.Method + ": " + c.Message
		s.saver.soon()
	case (c.Method == "Create" || c.Method == "Start") && c.ExecID == "" && !s.containerFailed:
		s.containerFailed = true
		s.exports.Go(func() { s.tell(0, c.Method+" of a container failed") })
	}
}

// tell tells the journal how long the start took, or why it failed.
func (s *sandbox) tell(took time.Duration, failure string) {
	if s.started == nil {
		return
	}
	if err := s.started(took, failure); err != nil {
		s.log.Warn("the journal may not keep this start for long", "error", err)
	}
}

// endRoot exports the sandbox's root span, if that has not happened: the first task runs,
// or none ever will (then failure says why). The call whose answer says so does not wait
// for the export. Where tracing is dynamic, there is no such span.
func (s *sandbox) endRoot(at time.Time, failure string) {
	s.mu.Lock()
	over := s.state.Dynamic || !s.state.RootEnd.IsZero()
	if !over {
		s.state.RootEnd, s.rootFailure = at, failure
	}
	st := s.state
	s.mu.Unlock()
	if !over {
		s.exportRoot(st, failure)
	}
}

// exportRoot exports the root span of a sandbox whose start is over.
func (s *sandbox) exportRoot(st state.State, failure string) {
	s.exports.Go(func() {
		defer s.rootIsOver()
		s.save() // first: if the relay is killed now, delete knows that the sandbox has started
		var attrs []attribute.KeyValue
		for _, more := range s.rootAttributes {
			attrs = append(attrs, more()...)
		}
		telemetry.EmitRoot(s.tracer, &st, st.RootEnd, failure, attrs...)
		if err := s.flush(); err != nil {
			s.log.Warn("the sandbox's root span may be exported twice", "error", err)
			return
		}
		s.tell(st.RootEnd.Sub(st.Started), failure)
		// Not before: a relay that is killed leaves the root to delete.
		s.mu.Lock()
		s.state.RootEnded = true
		s.mu.Unlock()
		s.save()
	})
}

// rootIsOver puts into effect a mode that waited for the root.
func (s *sandbox) rootIsOver() {
	s.mu.Lock()
	s.rootOver = true
	s.mu.Unlock()
	s.switcher.settle()
}

// flush waits until what has ended is in the journal.
func (s *sandbox) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), telemetry.FlushTime)
	defer cancel()
	return s.export(ctx)
}

// save writes the state beside the relay's socket, until leave, and for another process.
func (s *sandbox) save() { s.write(false, "the sandbox's root span may be exported twice") }

// write does what save does, and with bundles it also writes the state into the bundles of
// all containers. It logs what a failure means.
func (s *sandbox) write(bundles bool, failure string) {
	defer s.saver.now()
	s.saving.Lock()
	defer s.saving.Unlock()
	if s.left {
		return
	}
	s.mu.Lock()
	st := s.state
	paths := []string{s.statePath}
	for _, ct := range s.containers {
		if bundles && ct.bundle != "" && !ct.gone {
			paths = append(paths, filepath.Join(ct.bundle, state.File))
		}
	}
	s.mu.Unlock()
	for _, path := range paths {
		if err := st.Write(path); err != nil {
			s.log.Warn(failure, "error", err)
		}
	}
}

// leave says that the relay is about to remove its files.
func (s *sandbox) leave() {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.left = true
}

// neverStarted ends the root of a sandbox that is over, unless a task has started, and
// waits until the root is exported.
func (s *sandbox) neverStarted(at time.Time) {
	s.mu.Lock()
	why := "no task was started"
	if s.lastError != "" {
		why += "; " + s.lastError
	}
	s.mu.Unlock()
	s.endRoot(at, why)
	s.exports.Wait()
}
