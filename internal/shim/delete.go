package shim

import (
	"cmp"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

const (
	// abandonedTime bounds how long after its beginning delete still clears away what a
	// relay that died has left. containerd gives delete 5 s in all.
	abandonedTime = 4 * time.Second
	// restoreTime bounds the wait for the VMM to have its socket back.
	restoreTime = time.Second
)

// delete runs the inner shim's delete and passes its output on, byte for byte. What it
// then does for the trace is done by another process, for which nobody waits, unless a
// relay died. It is recorded only if the configuration could be read.
func (w wrapper) delete(cfg config.Config, readable bool, log *slog.Logger) int {
	st, err := state.Read(filepath.Join(w.Bundle, state.File))
	if err != nil {
		// The container was not traced.
		log.Debug("delete of a container without a trace", "error", err)
		return w.pass(log)
	}
	if !state.DirAnswers(cfg.Relay.StateDir) || !state.DirAnswers(st.StateDir()) {
		log.Warn("the end of this container is not traced", "error", "the state directory does not answer")
		return w.pass(log)
	}
	began := time.Now()
	_, recorded := st.Root(began)
	recorded = recorded && readable
	left := st.RelayDied()
	if !recorded && !left {
		return w.pass(log)
	}
	d := deletion{wrapper: w, st: st, log: log}
	if left {
		// The inner shim's delete may ask the agent.
		if err := d.recorder().Restore(st, restoreTime); err != nil {
			log.Warn("requests to the agent may not arrive", "error", err)
		}
	}
	t := state.Timing{Name: names.InnerDelete, Start: time.Now()}
	var who state.Identity
	out, err := w.runInner(func() {
		d.recorder() // it comes up while the inner shim works
		who = w.identity(st)
	})
	t.End = time.Now()
	if err != nil {
		t.Error = err.Error()
	}
	os.Stdout.Write(out)

	r := &standby.Recording{
		Who: who, Container: w.ID, State: *st, Code: exitCode(err), Response: out,
		Timing: state.Timing{Name: names.ShimDelete, Start: began, End: time.Now(), Error: t.Error, Children: []state.Timing{t}},
		Until:  began.Add(abandonedTime),
	}
	var wait time.Duration
	if left || st.RelayDied() {
		wait = time.Until(r.Until) + state.DiskTime
	}
	if err := d.recorder().Record(r, wait); err != nil {
		log.Warn("the end of this container is not traced", "error", err)
	}
	return exitCode(err)
}

// deletion is a delete that is recorded.
type deletion struct {
	wrapper
	st     *state.State
	log    *slog.Logger
	record *standby.Standby
	tried  bool
}

// recorder returns the process that records the delete; nil if it cannot be started: then
// the span is missing, and nothing else.
func (d *deletion) recorder() *standby.Standby {
	if !d.tried {
		d.tried = true
		var err error
		if d.record, err = standby.Spawn(d.Line, command.Record); err != nil {
			d.log.Warn("the end of this container is not traced", "error", err)
		}
	}
	return d.record
}

// identity returns the sandbox's identity. The bundle of a sandbox that was created by the
// shim has no spec.
func (w wrapper) identity(st *state.State) state.Identity {
	notes, err := state.ReadAnnotations(w.Bundle)
	if err != nil {
		notes = st.Annotations()
	}
	who := w.Identity(notes)
	who.Inner = cmp.Or(who.Inner, st.Inner)
	return who
}
