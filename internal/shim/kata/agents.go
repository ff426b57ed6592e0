package kata

import (
	"context"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

// listenForAgents waits for the agent wherever it may connect.
func (o *Observer) listenForAgents(ctx context.Context, kind *vmKind) {
	take := func(conn listen.Conn, from listen.Origin) {
		kind.isHybrid()
		o.take(conn, from)
	}
	hybrid, err := listen.NewHybrid(o.Who.Sandbox, listen.HybridOptions{
		Patterns:  agentconfig.Sockets(o.Config.Agent),
		Users:     o.Config.Agent.Users,
		Owns:      o.shim.Owns,
		Pace:      o.making.pace,
		Listening: o.listening,
		Left:      o.socketLeft,
		Sockets:   o.sockets(),
		Warn:      o.warnOfSpans,
	}, take)
	if err != nil {
		o.warnOfSpans(err)
	} else {
		o.running.Go(func() { hybrid.Serve(kind.hybrid) })
	}
	o.running.Go(func() {
		cid, err := listen.FindCID(kind.vsock, listen.CIDSource{Sandbox: o.Who.Sandbox, Shim: o.shim, Pace: o.making.pace})
		if err != nil {
			o.Log.Debug("VM without a VSOCK CID", "error", err)
			return
		}
		kind.isVSOCK()
		o.cid.Store(cid)
		o.Guard.Claim(cid)
		o.sandbox.Changed()
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
