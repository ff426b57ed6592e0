package relay

import (
	"errors"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// modeOf returns the mode that a sandbox was started in, as far as its state says.
func modeOf(st state.State) string {
	if st.Dynamic {
		return "dynamic"
	}
	return "static"
}

// newSwitcher returns the switcher of a sandbox that is traced in a mode.
func newSwitcher(s *sandbox, cfg config.Trace, mode string) *switcher {
	w := &switcher{sandbox: s, cfg: cfg}
	w.mode.Store(&mode)
	if !s.state.Dynamic {
		w.turns.SetAt(true, s.state.Started)
	}
	return w
}

// follow has the sandbox traced by another configuration.
func (w *switcher) follow(cfg config.Trace) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cfg = cfg
	w.adoptMode()
}

// settle puts into effect the mode that waited for the end of the sandbox's start.
func (w *switcher) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.adoptMode()
}

// adoptMode has the configured mode in effect, unless the sandbox is starting: the trace of
// its start is whole, and has its root.
func (w *switcher) adoptMode() {
	from, to := w.modeNow(), w.cfg.Mode
	if from == to || w.sandbox.starting() {
		return
	}
	switch {
	case to == "static":
		if w.turns.On() { // it does not end by itself any more
			w.sandbox.setWindow(func(win *state.Window) { win.Until = time.Time{} })
			w.endAt(time.Time{})
			break
		}
		if _, err := w.turnOn(telemetry.Turner{}, 0); err != nil {
			w.sandbox.log.Warn("the mode of the configuration is not in effect", "mode", to, "error", err)
			return
		}
	case to == "off" || from == "static":
		w.turnOff(telemetry.Turner{}, telemetry.ReasonConfiguration)
	}
	w.mode.Store(&to)
}

// refuses returns why the mode does not let somebody switch tracing, nil if it does.
func (w *switcher) refuses(do string) error {
	switch {
	case do == control.DoStatus:
	case w.modeNow() == "static":
		return errStatic
	case w.modeNow() == "off":
		return errOff
	}
	return nil
}

// modeNow returns the mode that is in effect.
func (w *switcher) modeNow() string { return *w.mode.Load() }

// Why nothing can be switched.
var (
	errStatic = errors.New("trace.mode is \"static\": the sandbox is traced all the time")
	errOff    = errors.New("trace.mode is \"off\" in the configuration")
)

// starting reports whether the sandbox's start is not over, or its root is on its way to the
// journal.
func (s *sandbox) starting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.state.Dynamic && !s.rootOver
}

// haveWindow makes a sandbox that was traced from its beginning one whose tracing is
// switched: its time until now becomes a window.
func (s *sandbox) haveWindow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.state.Dynamic {
		s.state.Dynamic = true
		s.state.Window = &state.Window{Trace: s.state.Trace, Began: s.state.Started}
	}
}
