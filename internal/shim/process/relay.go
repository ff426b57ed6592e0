package process

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/shimtrace/shimtrace/internal/shim/relay"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// relay is the life of a process that start has started.
func (p process) relay(o relay.Options) int {
	cfg, log := o.Config, o.Log
	p.becomeIndependent()
	starter, err := standby.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		return 2
	}
	notes, _ := state.ReadAnnotations(p.Bundle) // no spec, no pod: the spans say less
	o.Who, o.Container, o.Guard = p.Identity(notes), p.ID, p.guarded(cfg, log)
	r, err := relay.Prepare(o)
	if err != nil {
		starter.Ready(state.State{}, err)
	} else {
		starter.Ready(r.Beginning(), nil)
	}
	serr := starter.Serve(standby.Orders{
		Relay: func(st state.State, listener, sentinel *os.File) { run(r, st, listener, sentinel, starter, log) },
		// A start that has failed has this process record that.
		Record: func(rec *standby.Recording) error {
			cause, _ := telemetry.Cause(notes, cfg.Trace.Annotations)
			rec.State.Cause = state.CauseContext(cause)
			return p.make(rec, cfg, true, log)
		},
	})
	if serr != nil {
		log.Error("relay", "error", serr)
		return 1
	}
	return 0
}

// run is the life of a relay that is told what to relay.
func run(r *relay.Process, st state.State, listener, sentinel *os.File, starter *standby.Starter, log *slog.Logger) {
	if err := r.Take(st, listener, sentinel); err != nil {
		log.Error("relay", "error", err)
		return
	}
	r.Serve()
	if !starter.Answered() {
		log.Error("relay hand-over", "error", "start has ended before it answered")
		if r.Abandoned() {
			return
		}
	}
	r.Run()
}
