package shim

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/forwarder/collate"
	"github.com/shimtrace/shimtrace/forwarder/listen"
	"github.com/shimtrace/shimtrace/forwarder/receiver"
	"github.com/shimtrace/shimtrace/middleware"
	"github.com/shimtrace/shimtrace/shim/agentconfig"
)

const (
	// agentService is the service.name of what the agent sends.
	agentService = "kata-agent"
	// agentDrain bounds how long the relay reads on at its end.
	agentDrain = 5 * time.Second
	// cidTime bounds the search for the VM's CID: a VM with hybrid VSOCK has none.
	cidTime = 2 * time.Minute
)

// agents receives what the agent in the sandbox's VM sends, and what VMs send that
// a porter has been left with.
type agents struct {
	sandbox  string
	own      *collate.Collator
	receiver *receiver.Receiver
	log      *slog.Logger

	stop    context.CancelFunc
	running sync.WaitGroup
}

// receivesAgents tells whether the inner shim's containers live in VMs with agents.
func receivesAgents(cfg config.Agent, inner string) bool {
	switch cfg.Receive {
	case "on":
		return true
	case "auto":
		return strings.Contains(filepath.Base(inner), "kata")
	}
	return false
}

// startAgents listens for the agent of the sandbox. Nothing of it can keep the
// relay from its work: what fails is logged.
func (r *relayProcess) startAgents() *agents {
	ctx, stop := context.WithCancel(context.Background())
	warn := func(err error) { r.log.Warn("agent's spans", "error", err) }
	a := &agents{sandbox: r.who.sandbox, log: r.log, stop: stop}
	a.receiver = receiver.New(receiver.Options{
		Forwarder: agentconfig.Forwarder(r.cfg.Agent),
		Collation: r.collation,
		Wanted:    r.wanted,
		Client:    r.tel.keeper.Client(r.tel.journal),
		Drops:     r.tel.journal,
		Warn:      warn,
	})
	a.own = a.receiver.Sandbox(a.sandbox)

	hybrid, err := listen.NewHybrid(a.sandbox, listen.HybridOptions{Patterns: agentconfig.Sockets(r.cfg.Agent), Users: r.cfg.Agent.Users, Warn: warn}, a.receiver.Take)
	if err != nil {
		warn(err)
	} else {
		a.running.Go(func() { hybrid.Serve(ctx) })
	}
	vsock := listen.NewVSOCK(listen.VSOCKOptions{Dir: filepath.Join(r.cfg.Relay.StateDir, "vsock"), Warn: warn}, a.receiver.Take)
	a.running.Go(func() {
		if err := vsock.Serve(ctx); err != nil {
			warn(err)
		}
	})
	a.running.Go(func() {
		find, cancel := context.WithTimeout(ctx, cidTime)
		defer cancel()
		cid, err := listen.FindCID(find, listen.CIDSource{Sandbox: a.sandbox, Shim: servingPID(r.inner, r.id)})
		if err != nil {
			r.log.Debug("VM without a VSOCK CID", "error", err)
			return
		}
		vsock.Claim(a.sandbox, cid)
	})
	a.running.Go(func() { a.receiver.Run(ctx) })
	return a
}

// began tells of a call of the shim that has begun, and ended of one that was
// answered.
func (a *agents) began(c *middleware.Call) { a.own.Call(collateCall(c)) }

func (a *agents) ended(c *middleware.Call) {
	call := collateCall(c)
	call.End, call.Failed = c.End, c.Code != 0
	a.own.Call(call)
}

// lost tells of a call that got no answer. A quiet one is not recorded for that, however
// long it was.
func (a *agents) lost(c *middleware.Call) {
	call := collateCall(c)
	call.End, call.Failed = c.End, !c.Quiet()
	if c.Quiet() {
		call.End = c.Start
	}
	a.own.Call(call)
}

// collateCall has what is known of a call before its answer.
func collateCall(c *middleware.Call) collate.Call {
	return collate.Call{
		Method:      c.Method,
		ContainerID: firstOf(c.ContainerID, c.SandboxID),
		ExecID:      c.ExecID,
		Start:       c.Start,
		SpanContext: c.SpanContext(),
	}
}

// close ends the receiver when the VM has: it reads what there is to its end.
func (a *agents) close() {
	a.stop()
	a.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), agentDrain)
	defer cancel()
	if err := a.receiver.Close(ctx); err != nil {
		a.log.Warn("agent's spans were lost", "error", err)
	}
}
