package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

// switcher turns the tracing of a sandbox on and off: where trace.mode is "dynamic", as
// somebody asks for, and when the mode changes. Each time it is on is a window, with a
// trace of its own. A sandbox that was started in mode "static" has the sandbox trace as
// the trace of its first window.
type switcher struct {
	sandbox *sandbox
	turns   middleware.Switch // what calls go by
	// mode is the one in effect; cfg.Mode is to be, once the sandbox's start is over.
	mode atomic.Pointer[string]

	mu    sync.Mutex // held while it is turned, for as long as it takes to export a span
	cfg   config.Trace
	timer *time.Timer
	over  bool // the relay is about to end
}

// Switch returns the switch that the sandbox's relays go by.
func (s *sandbox) Switch() *middleware.Switch { return &s.switcher.turns }

// errOver says that it is too late to switch anything.
var errOver = errors.New("the sandbox has just ended")

// on switches tracing on for a time (0: until it is switched off), or has it end at
// another time if it is on. The root of the new trace is in the journal before
// anything else can be, so that the trace has one whatever happens.
func (w *switcher) on(by telemetry.Turner, length time.Duration) (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.turnOn(by, length)
}

func (w *switcher) turnOn(by telemetry.Turner, length time.Duration) (changed bool, err error) {
	if w.over {
		return false, errOver
	}
	now := time.Now()
	var until time.Time
	if length > 0 {
		until = now.Add(length)
	}
	if w.turns.On() {
		w.sandbox.setWindow(func(win *state.Window) { win.Until = until })
		w.endAt(until)
		return false, nil
	}
	root := export.NewRoot(context.Background(), w.cfg)
	win := &state.Window{Trace: state.NewTraceContext(root), Began: now, Until: until}
	telemetry.EmitSwitchedOn(w.sandbox.tracer, win, w.sandbox.cause(), by, length)
	if err := w.sandbox.flush(); err != nil {
		return false, fmt.Errorf("nothing can be recorded: %w", err)
	}
	w.sandbox.open(win)
	w.turns.SetAt(true, now)
	w.endAt(until)
	return true, nil
}

// resume goes on with a window that another process has opened.
func (w *switcher) resume(win *state.Window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turns.SetAt(true, win.Began)
	w.endAt(win.Until)
}

// off switches tracing off. What is under way is still recorded when it ends.
func (w *switcher) off(by telemetry.Turner) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.turnOff(by, telemetry.ReasonCommand)
}

// expire ends the window that was to end at a time, unless it is to end at another
// one by now.
func (w *switcher) expire(until time.Time) {
	defer func() {
		if v := recover(); v != nil {
			w.sandbox.log.Error("tracing was not switched off in time", "panic", v)
		}
	}()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sandbox.window().Until.Equal(until) {
		w.turnOff(telemetry.Turner{}, telemetry.ReasonTime)
	}
}

func (w *switcher) turnOff(by telemetry.Turner, reason string) (changed bool) {
	if w.over || !w.turns.Set(false) {
		return false
	}
	w.endAt(time.Time{})
	now := time.Now()
	w.sandbox.haveWindow()
	win := w.sandbox.end(now)
	telemetry.EmitSwitchedOff(w.sandbox.tracer, win, now, by, reason)
	if err := w.sandbox.flush(); err != nil {
		w.sandbox.log.Warn("the end of a trace is not recorded", "error", err)
	}
	return true
}

// close ends the window with the sandbox, whose end belongs to it. Nothing can be
// switched any more.
func (w *switcher) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.endAt(time.Time{})
	if win := w.sandbox.window(); win != nil && w.turns.On() {
		telemetry.EmitSwitchedOff(w.sandbox.tracer, win, time.Now(), telemetry.Turner{}, telemetry.ReasonSandbox)
	}
}

// endAt has the window end at a time, or not by itself if that is zero.
func (w *switcher) endAt(until time.Time) {
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
	if until.IsZero() {
		return
	}
	w.timer = time.AfterFunc(time.Until(until), func() { w.expire(until) })
}
