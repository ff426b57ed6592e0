package relay

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/shim/helpers"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/server"
)

const (
	// followTime bounds how long the inner shim's process is looked for.
	followTime = 30 * time.Second
	// firstTime is how long the sandbox's root waits for the first program in a container:
	// the guard tells of it within milliseconds, and the answer to Start was on its way.
	firstTime = 50 * time.Millisecond
)

// observeHelpers has what the inner shim executes recorded, if it is to be.
func (p *Process) observeHelpers(was json.RawMessage) {
	if p.Config.Process.Record == "off" || p.Guard.Dir == "" {
		return
	}
	h := helpers.New(helpers.Options{
		Sandbox: p.sandbox, Tracer: p.tel.Tracer, Losses: p.tel.Journal.Losses(losses.Ours), Slow: time.Duration(p.Config.Trace.Slow),
		VMM: p.vmmSeen, Alive: p.innerAlive,
	})
	if err := h.Restore(was); err != nil {
		p.Log.Warn("spans of helpers are lost", "error", err)
	}
	p.sandbox.rootAttributes = append(p.sandbox.rootAttributes, func() []attribute.KeyValue {
		if at, ok := h.First(firstTime); ok {
			return []attribute.KeyValue{attribute.Int64(names.FirstInstruction, int64(at.Sub(p.state.Started)))}
		}
		return nil
	})
	p.helpers.Store(h)
}

// followHelpers finds the inner shim's process, and asks the guard for reports on what that
// executes.
func (p *Process) followHelpers(ctx context.Context) {
	h := p.helpers.Load()
	if p.untraced {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	inner := server.Await(ctx, p.Who.Inner, p.Container, p.state.InnerSock, p.state.InnerPID)
	if inner.PID == 0 {
		p.Log.Debug("the inner shim's process was not found: what it executes is not recorded")
		if h != nil {
			h.Unrecorded()
		}
		return
	}
	p.usage.Inner(inner)
	if h != nil {
		p.guarded.Follow(inner.PID, inner.Start, p.inVM())
	}
}

// innerAlive reports whether the process that has answered for the inner shim is there.
func (p *Process) innerAlive() bool {
	state := host.Proc(procDir).State(p.state.InnerPID)
	return state != 0 && state != 'Z'
}

// vmmSeen is told of the sandbox's VMM.
func (p *Process) vmmSeen(r procevents.Report, at time.Time) {
	p.usage.VMM(host.Process{PID: r.PID, Start: r.Start})
	if p.kata != nil {
		go p.kata.VMM(r.Program, r.PID, at)
	}
}

// inVM reports whether what the inner shim executes is never a container's program: those
// are in a VM, or, with gVisor's runsc, executed by no process that the kernel knows.
func (p *Process) inVM() bool {
	return kata.Receives(p.Config.Agent.Receive, p.Who.Inner) || strings.Contains(filepath.Base(p.Who.Inner), "runsc")
}

func (p *Process) helperReported(r procevents.Report) {
	defer func() {
		if v := recover(); v != nil {
			p.Log.Error("a helper is not recorded", "panic", v)
		}
	}()
	if h := p.helpers.Load(); h != nil {
		h.Report(r)
	}
}

func (p *Process) helpersUnrecorded(why string) {
	p.Log.Debug("what the inner shim executes is not recorded", "error", why)
	if h := p.helpers.Load(); h != nil {
		h.Unrecorded()
	}
}
