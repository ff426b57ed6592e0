package shim

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
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

// delete runs the inner shim's delete and passes its output on, byte for byte.
// What it then does for the trace costs containerd no wait for a backend.
// It is recorded only if the configuration could be read.
func (c command) delete(cfg config.Config, inner string, readable bool, log *slog.Logger) int {
	st, err := state.Read(filepath.Join(c.bundle, state.File))
	if err != nil {
		// The container was not traced.
		log.Debug("delete of a container without a trace", "error", err)
		return c.pass(inner, log)
	}
	if !state.DirAnswers(cfg.Relay.StateDir) || !state.DirAnswers(st.StateDir()) {
		log.Warn("the end of this container is not traced", "error", "the state directory does not answer")
		return c.pass(inner, log)
	}
	began := time.Now()
	_, recorded := st.Root(began)
	recorded = recorded && readable
	var recorder *standby
	if recorded {
		// It comes up while the inner shim works. Without it there is no span, no more.
		recorder, err = spawnRelay(c, actionRecord)
		if err != nil {
			log.Warn("the end of this container is not traced", "error", err)
		}
	}
	c.restoreSocket(cfg, st, inner, log)
	t := state.Timing{Name: names.InnerDelete, Start: time.Now()}
	var out bytes.Buffer
	cmd := innerCommand(inner, c)
	cmd.Stdout = &out
	err = cmd.Run()
	t.End = time.Now()
	if err != nil {
		t.Error = err.Error()
		t.Expected = expected.Delete(inner, exitCode(err), st.Deleted)
	}
	os.Stdout.Write(out.Bytes())

	relayGone := c.clearInTime(st, began.Add(orphanTime), log)
	if !recorded && !(readable && leftOn(relayGone)) {
		return exitCode(err)
	}
	whole := state.Timing{Name: names.ShimDelete, Start: began, End: time.Now(), Error: t.Error, Expected: t.Expected, Children: []state.Timing{t}}
	who := c.identity(inner)
	if who.Notes == nil {
		who.Notes = st.Annotations() // the bundle of a sandbox that was created by the shim has no spec
	}
	r := newRecording(who, c.id, *st, whole)
	r.Response, r.Gone = out.Bytes(), relayGone
	var rerr error
	if recorder == nil {
		recorder, rerr = spawnRelay(c, actionRecord)
	}
	if rerr == nil {
		rerr = recorder.record(r)
	}
	if rerr != nil {
		log.Warn("the end of this container is not traced", "error", rerr)
	}
	return exitCode(err)
}

// clearInTime is clear, unless the state directory's file system hangs.
func (c command) clearInTime(st *state.State, deadline time.Time, log *slog.Logger) *state.State {
	left := make(chan *state.State, 1)
	go func() { left <- c.clear(st, deadline, log) }()
	select {
	case gone := <-left:
		return gone
	case <-time.After(time.Until(deadline) + state.DiskTime):
		log.Warn("a relay's files may be left behind", "error", "the state directory does not answer")
		return nil
	}
}

// restoreSocket gives the VMM's socket back if the relay died in its place.
func (c command) restoreSocket(cfg config.Config, st *state.State, inner string, log *slog.Logger) {
	if p := st.Paths(); p.Socket != st.RelaySock || state.Answers(p.Socket) {
		return
	}
	if err := kata.RestoreSocket(cfg.Agent, st.Sandbox, inner); err != nil {
		log.Warn("requests to the agent may not arrive", "error", err)
	}
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
		end, failure := relayGone.RootEnd, ""
		if end.IsZero() {
			end, failure = t.Start, "the relay died before the first task was started"
		}
		telemetry.EmitRoot(tracer, relayGone, end, failure)
	}
}

// leftOn reports whether a relay, if it died, left a window without its end.
func leftOn(st *state.State) bool { return st != nil && st.Window != nil && st.Window.Ended.IsZero() }

// emitRest makes that end.
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
func (c command) clear(st *state.State, deadline time.Time, log *slog.Logger) *state.State {
	p := st.Paths()
	if p.Socket != st.RelaySock || p.Lives() {
		return nil
	}
	if err := endOrphan(st, c.id, deadline); err != nil {
		log.Warn("a shim may be left behind", "error", err)
	}
	release, err := p.Acquire(0)
	if err != nil {
		return nil // somebody is at it
	}
	defer release()
	left, err := state.Read(p.State)
	if err != nil || left.Trace != st.Trace {
		if err != nil {
			p.Remove()
		}
		return nil
	}
	if p.Lives() {
		return nil
	}
	p.Remove()
	st.RemoveLeakedSocket()
	return left
}
