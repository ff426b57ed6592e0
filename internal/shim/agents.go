package shim

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/shim/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

const (
	// agentService is the service.name of what the agent sends.
	agentService = "kata-agent"
	// agentDrain bounds how long the relay reads on at its end.
	agentDrain = 5 * time.Second
	// vmTime is how long a VM is expected without a call that would make one.
	vmTime = 2 * time.Minute
)

// agents is all that is about the agent in the sandbox's VM: it receives what the agent
// sends, and what VMs send that a porter has been left with; it has the agent's requests
// relayed; and it observes the shim's calls, which cause all of it.
type agents struct {
	middleware.NopObserver
	sandbox  string
	own      *collate.Collator
	receiver *receiver.Receiver
	injector *injector // nil where requests are not relayed
	shim     *listen.Shim
	making   making // the VM
	log      *slog.Logger

	stop    context.CancelFunc
	running sync.WaitGroup
}

// forKata tells what a setting means for an inner shim: "auto" is on for those of Kata,
// whose containers live in VMs with agents.
func forKata(setting, inner string) bool {
	return setting == "on" || setting == "auto" && kata.IsShim(inner)
}

// startAgents does for the agent of the sandbox what is configured, and returns nil if
// that is nothing. It cannot keep the relay from its work: what fails is logged.
func (r *relayProcess) startAgents() *agents {
	receive, inject := forKata(r.cfg.Agent.Receive, r.inner), forKata(r.cfg.Agent.Inject, r.inner)
	if !receive && !inject && r.runtimes == nil {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	warn := func(err error) { r.log.Warn("agent's spans", "error", err) }
	a := &agents{sandbox: r.who.Sandbox, log: r.log, stop: stop, making: making{pace: vmmdir.NewPace(vmTime)}}
	a.shim = &listen.Shim{Find: func() host.Process { return servingProcess(r.inner, r.id, r.state.InnerSock) }}
	a.receiver = receiver.New(receiver.Options{
		Forwarder: agentconfig.Forwarder(r.cfg.Agent),
		Collation: r.collation,
		Client:    r.tel.Queue,
		Drops:     r.tel.Journal,
		Warn:      warn,
	})
	a.own = a.receiver.Sandbox(a.sandbox)
	a.running.Go(func() { a.receiver.Run(ctx) })
	kind := newVMKind(ctx)
	if receive {
		r.listenForAgents(ctx, a, kind, warn)
	}
	if inject {
		a.injector = r.startInjector(a, kind, r.mode())
	}
	if r.runtimes != nil {
		r.runtimes.serve(r, a)
	}
	return a
}

// listenForAgents waits for the agent wherever it may connect.
func (r *relayProcess) listenForAgents(ctx context.Context, a *agents, kind *vmKind, warn func(error)) {
	take := func(conn listen.Conn, from listen.Origin) {
		kind.isHybrid()
		a.receiver.Take(conn, from)
	}
	hybrid, err := listen.NewHybrid(a.sandbox, listen.HybridOptions{
		Patterns: agentconfig.Sockets(r.cfg.Agent),
		Users:    r.cfg.Agent.Users,
		Owns:     a.shim.Owns,
		Pace:     a.making.pace,
		Warn:     warn,
	}, take)
	if err != nil {
		warn(err)
	} else {
		a.running.Go(func() { hybrid.Serve(kind.hybrid) })
	}
	vsock := listen.NewVSOCK(listen.VSOCKOptions{Dir: filepath.Join(r.cfg.Relay.StateDir, "vsock"), Warn: warn}, a.receiver.Take)
	a.running.Go(func() {
		if err := vsock.Serve(ctx); err != nil {
			warn(err)
		}
	})
	a.running.Go(func() {
		cid, err := listen.FindCID(kind.vsock, listen.CIDSource{Sandbox: a.sandbox, Shim: a.shim, Pace: a.making.pace})
		if err != nil {
			r.log.Debug("VM without a VSOCK CID", "error", err)
			return
		}
		kind.isVSOCK()
		vsock.Claim(a.sandbox, cid)
	})
}

// vmKind is which of the two kinds of VSOCK the sandbox's VM has: what waits for the
// other one need not wait any longer.
type vmKind struct {
	hybrid, vsock     context.Context // done when it has the other one
	isHybrid, isVSOCK context.CancelFunc
}

func newVMKind(ctx context.Context) *vmKind {
	k := new(vmKind)
	k.hybrid, k.isVSOCK = context.WithCancel(ctx)
	k.vsock, k.isHybrid = context.WithCancel(ctx)
	return k
}

var _ middleware.Observer = (*agents)(nil)

// Began implements middleware.Observer.
func (a *agents) Began(c *middleware.Call) {
	if a.injector != nil {
		a.injector.requests.quiet.began(c)
	}
	a.making.began(c)
	a.own.Call(collateCall(c))
}

// Answered implements middleware.Observer.
func (a *agents) Answered(c *middleware.Call) {
	a.making.over(c, false)
	a.over(c, answeredCall(c))
}

// Lost implements middleware.Observer.
func (a *agents) Lost(c *middleware.Call) {
	a.making.over(c, true)
	a.over(c, lostCall(c))
}

func (a *agents) over(c *middleware.Call, call collate.Call) {
	if a.injector != nil {
		a.injector.requests.quiet.ended(c)
	}
	a.own.Call(call)
}

// collateCall has what is known of a call before its answer.
func collateCall(c *middleware.Call) collate.Call {
	return collate.Call{
		Method:      c.Method,
		ContainerID: cmp.Or(c.ContainerID, c.SandboxID),
		ExecID:      c.ExecID,
		Start:       c.Start,
		Quiet:       c.Quiet(),
		SpanContext: c.SpanContext(),
	}
}

func answeredCall(c *middleware.Call) collate.Call {
	call := collateCall(c)
	call.End, call.Failed = c.End, c.Code != 0 && !c.Expected
	return call
}

// lostCall is a call without an answer. A quiet one is not recorded for that, however
// long it was.
func lostCall(c *middleware.Call) collate.Call {
	call := collateCall(c)
	call.End, call.Failed = c.End, !c.Quiet()
	if c.Quiet() {
		call.End = c.Start
	}
	return call
}

// close ends the receiver when the VM has: it reads what there is to its end.
func (a *agents) close() {
	a.stop()
	a.running.Wait()
	if a.injector != nil {
		if err := a.injector.close(); err != nil {
			a.log.Warn("requests to the agent were cut off", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), agentDrain)
	defer cancel()
	if err := a.receiver.Close(ctx); err != nil {
		a.log.Warn("agent's spans were lost", "error", err)
	}
}
