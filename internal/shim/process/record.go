package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware/wire"
)

// Field numbers of containerd.task.v2 DeleteResponse, which delete prints.
const (
	deletePID        = 1
	deleteExitStatus = 2
	deleteExitedAt   = 3
)

// record is the life of a process that delete has started. It records only if the
// configuration could be read.
func (p process) record(cfg config.Config, readable bool, log *slog.Logger) int {
	p.becomeIndependent()
	starter, err := standby.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		return 2
	}
	err = starter.Serve(standby.Orders{
		Restore: func(st *state.State) error { return kata.RestoreSocket(cfg.Agent, st.Sandbox, p.Inner) },
		Record: func(r *standby.Recording) error {
			log, logs := telemetry.Correlate(log)
			root, _ := r.State.Root(r.Timing.Start)
			logs.To(func() trace.SpanContext { return root })
			err := p.make(r, cfg, readable, log)
			if err != nil {
				log.Warn("the end of this container is not traced", "error", err)
			}
			return err
		},
	})
	if err != nil {
		log.Error("record", "error", err)
		return 1
	}
	return 0
}

// make clears away what a relay has left, and writes the spans to the journal.
func (p process) make(r *standby.Recording, cfg config.Config, readable bool, log *slog.Logger) error {
	var left *state.State
	if r.Failure == "" {
		left = p.clear(&r.State, r.Until, log)
	}
	_, own := r.State.Root(r.Timing.Start)
	if !readable || !own && !leftOn(left) {
		return nil
	}
	release, err := recorderSlot(cfg.Relay.StateDir, slotTime)
	if err != nil {
		return err
	}
	defer release()
	if r.Failure != "" {
		r.State.Trace = state.NewTraceContext(telemetry.NewRoot(cfg.Trace, r.State.Cause.SpanContext()))
	}
	tel, err := telemetry.Open(cfg, identity(r), log, nil)
	if err != nil {
		return err
	}
	emit(tel.Tracer, r, left)
	if took, failure, is := startOf(r, left); is {
		if err := tel.Journal.Within(telemetry.FlushTime, func() error { return tel.Started(took, failure) }); err != nil {
			log.Warn("the journal may not keep this start for long", "error", err)
		}
	}
	tel.Close(log, 0)
	return nil
}

// identity returns the sandbox's identity, with the run that the state belongs to.
func identity(r *standby.Recording) state.Identity {
	who := r.Who
	who.Run = telemetry.RunOf(r.State.Trace.SpanContext(), r.State.Cause.SpanContext())
	return who
}

// emit makes the spans of a recording, and those that were to be made by a relay that is no
// more, whose state is given.
func emit(tracer trace.Tracer, r *standby.Recording, left *state.State) {
	about := telemetry.ContainerAttributes(r.Container, r.Who.Notes.Container())
	if r.Failure != "" {
		telemetry.Emit(telemetry.Remote(r.State.Trace.SpanContext()), tracer, r.Timing, nil, about...)
		telemetry.EmitRoot(tracer, &r.State, r.Timing.End, r.Failure)
		return
	}
	if expected.Delete(r.Who.Inner, r.Code, r.State.Deleted) {
		r.Timing.Expected = true
		for i := range r.Timing.Children {
			r.Timing.Children[i].Expected = true
		}
	}
	recordDelete(tracer, &r.State, about, r.Timing, r.Response, left)
}

// recordDelete makes the span of the delete, with the attributes of its container,
// and those that were to be made by a relay that is no more.
func recordDelete(tracer trace.Tracer, st *state.State, attrs []attribute.KeyValue, t state.Timing, response []byte, relayGone *state.State) {
	if root, recorded := st.Root(t.Start); recorded {
		recordOwnDelete(tracer, root, st.Pending, attrs, t, response)
	}
	switch {
	case relayGone == nil:
	case relayGone.Dynamic:
		emitRest(tracer, relayGone, t.Start)
	case !relayGone.RootEnded:
		end, failure := rootOf(relayGone, t.Start)
		telemetry.EmitRoot(tracer, relayGone, end, failure)
	}
}

// rootOf returns when the start of a sandbox ended whose relay died without making the root
// span, and why the start failed. A start that was under way then ends at the given moment.
func rootOf(relayGone *state.State, at time.Time) (end time.Time, failure string) {
	if relayGone.RootEnd.IsZero() {
		return at, "the relay died before the first task was started"
	}
	return relayGone.RootEnd, ""
}

// startOf returns how long the start that a recording tells of took, and why it failed;
// false if the recording tells of no start.
func startOf(r *standby.Recording, relayGone *state.State) (took time.Duration, failure string, is bool) {
	switch {
	case r.Failure != "":
		return r.Timing.End.Sub(r.State.Started), r.Failure, true
	case relayGone == nil, relayGone.Dynamic, relayGone.RootEnded:
		return 0, "", false
	}
	end, failure := rootOf(relayGone, r.Timing.Start)
	return end.Sub(relayGone.Started), failure, true
}

// leftOn reports whether a relay, if it died, left a window without its end.
func leftOn(st *state.State) bool { return st != nil && st.Window != nil && st.Window.Ended.IsZero() }

// emitRest makes the span that ends such a window.
func emitRest(tracer trace.Tracer, st *state.State, at time.Time) {
	if !leftOn(st) {
		return
	}
	reason := telemetry.ReasonRelay
	if until := st.Window.Until; !until.IsZero() && until.Before(at) {
		at, reason = until, telemetry.ReasonTime
	}
	telemetry.EmitSwitchedOff(tracer, st.Window, at, telemetry.Turner{}, reason)
}

func recordOwnDelete(tracer trace.Tracer, root trace.SpanContext, pending []state.Timing, attrs []attribute.KeyValue, t state.Timing, response []byte) {
	for _, left := range pending {
		telemetry.Emit(telemetry.Remote(root), tracer, left, nil, attrs...)
	}
	if pid, ok := wire.Uint(response, deletePID); ok {
		attrs = append(attrs, semconv.ProcessPID(int(pid)))
	}
	// A status of 0 is not on the wire: an answer with the time of an exit has one.
	if status, ok := wire.Uint(response, deleteExitStatus); ok || !wire.Time(response, deleteExitedAt).IsZero() {
		attrs = append(attrs, semconv.ProcessExitCode(int(status)))
	}
	telemetry.Emit(telemetry.Remote(root), tracer, t, nil, attrs...)
}

// clear removes what a relay that died left behind, and returns its state; nil if
// the relay lives or has left in order.
func (p process) clear(st *state.State, deadline time.Time, log *slog.Logger) *state.State {
	paths := st.Paths()
	if paths.Socket != st.RelaySock || paths.Lives() {
		return nil
	}
	if err := endAbandoned(st, p.ID, deadline); err != nil {
		log.Warn("a shim may be left behind", "error", err)
	}
	release, err := paths.Acquire(0)
	if err != nil {
		return nil // somebody is at it
	}
	defer release()
	left, err := state.Read(paths.State)
	if err != nil || left.Trace != st.Trace {
		if err != nil {
			paths.Remove()
		}
		return nil
	}
	if paths.Lives() {
		return nil
	}
	paths.Remove()
	st.RemoveLeakedSocket()
	return left
}

// maxRecorders bounds the processes that record at a time: while the journal's disk
// hangs, none of them ends. slotTime is how long one waits for the others.
const (
	maxRecorders = 8
	slotTime     = 5 * time.Second
)

// recorderSlot returns when this process is one of at most maxRecorders.
func recorderSlot(stateDir string, wait time.Duration) (release func(), err error) {
	path := filepath.Join(stateDir, "record.lock")
	if err := private.MakeDir(stateDir); err != nil {
		return nil, err
	}
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		for i := range maxRecorders {
			lock, err := host.LockFile(path+strconv.Itoa(i), unix.LOCK_EX, 0)
			if err == nil {
				return func() { lock.Close() }, nil
			}
			if !errors.Is(err, host.ErrLocked) {
				return nil, err
			}
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%d processes have been at it for %v: %w", maxRecorders, wait, journal.ErrHangs)
		}
	}
}
