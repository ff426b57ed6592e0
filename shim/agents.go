package shim

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/export"
	"github.com/shimtrace/shimtrace/forwarder"
	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/collate"
	"github.com/shimtrace/shimtrace/forwarder/listen"
	"github.com/shimtrace/shimtrace/middleware"
)

const (
	// agentService is the service.name of what the agent sends.
	agentService = "kata-agent"
	// agentTick is how often spans that wait are looked at, and losses told.
	agentTick = 500 * time.Millisecond
	// agentDrain bounds how long the relay reads on at its end.
	agentDrain = 5 * time.Second
	// cidTime bounds the search for the VM's CID: a VM with hybrid VSOCK has none.
	cidTime = 2 * time.Minute
	// maxStrangers bounds the VMs of no known sandbox that are kept apart.
	maxStrangers = 64
)

// agents is the relay's receiver for what the agent in the sandbox's VM sends.
type agents struct {
	sandbox   string
	own       *collate.Collator
	forwarder *forwarder.Forwarder
	client    otlptrace.Client
	drops     export.Drops
	log       *slog.Logger
	options   func(sandbox string, cid uint32) collate.Options

	stop    context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	strangers map[uint32]*collate.Collator // by CID; of a porter
	lost      map[string]uint64            // told of so far
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
	a := &agents{
		sandbox:   r.who.sandbox,
		client:    r.tel.keeper.Client(r.tel.journal),
		drops:     r.tel.journal,
		log:       r.log,
		stop:      stop,
		strangers: make(map[uint32]*collate.Collator),
		lost:      make(map[string]uint64),
	}
	a.options = a.collation(r.cfg, r.who, r.state.Trace)
	a.own = collate.New(a.options(a.sandbox, 0))
	a.forwarder = forwarder.New(a, forwarderOptions(r.cfg.Agent))
	warn := func(err error) { r.log.Warn("agent's spans", "error", err) }

	hybrid, err := listen.NewHybrid(a.sandbox, listen.HybridOptions{Patterns: patterns(r.cfg.Agent.Sockets), Users: r.cfg.Agent.Users, Warn: warn}, a.forwarder.Take)
	if err != nil {
		warn(err)
	} else {
		a.running.Go(func() { hybrid.Serve(ctx) })
	}
	vsock := listen.NewVSOCK(listen.VSOCKOptions{Dir: filepath.Join(r.cfg.Relay.StateDir, "vsock"), Warn: warn}, a.forwarder.Take)
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
	a.running.Go(func() { a.tick(ctx) })
	return a
}

// began tells of a call of the shim that has begun, and ended of one that is over.
func (a *agents) began(c *middleware.Call) { a.own.Call(collateCall(c)) }

func (a *agents) ended(c *middleware.Call) {
	call := collateCall(c)
	call.End, call.Failed = c.End, c.Code != 0
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

// Span implements forwarder.Sink.
func (a *agents) Span(conn forwarder.ConnInfo, span *agentwire.Span) {
	if c := a.collator(conn); c != nil {
		c.Add(span)
		return
	}
	a.drops.Drop("agent: strangers", 1)
}

// Closed implements forwarder.Sink.
func (a *agents) Closed(conn forwarder.ConnInfo, _ error) {
	c := a.collator(conn)
	if c == nil {
		return
	}
	c.Ended()
	if c != a.own {
		a.mu.Lock()
		delete(a.strangers, conn.CID)
		a.mu.Unlock()
	}
}

// collator returns the collator for a connection: our own, or that of a VM which a
// porter has been left with.
func (a *agents) collator(conn forwarder.ConnInfo) *collate.Collator {
	if conn.Sandbox == a.sandbox {
		return a.own
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.strangers[conn.CID]
	if c == nil && len(a.strangers) < maxStrangers {
		c = collate.New(a.options("", conn.CID))
		a.strangers[conn.CID] = c
	}
	return c
}

// export is the collators' sink.
func (a *agents) export(spans []*tracepb.ResourceSpans) {
	// The journal counts what it cannot take.
	if err := a.client.UploadTraces(context.Background(), spans); err != nil {
		a.log.Warn("agent's spans were lost", "error", err)
	}
}

// dropped counts what the collation does not pass on, but for what nobody wants.
func (a *agents) dropped(reason collate.Reason, n int) {
	if reason != collate.Quiet && reason != collate.Unsampled {
		a.drops.Drop("agent: "+string(reason), n)
	}
}

// tick sees to spans that wait, and tells of those that were lost.
func (a *agents) tick(ctx context.Context) {
	ticker := time.NewTicker(agentTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			a.each((*collate.Collator).Tick)
			a.tell()
		}
	}
}

func (a *agents) each(f func(*collate.Collator)) {
	a.mu.Lock()
	all := append(slices.Collect(maps.Values(a.strangers)), a.own)
	a.mu.Unlock()
	for _, c := range all {
		f(c)
	}
}

// tell counts in the journal what the forwarder has lost since the last time.
func (a *agents) tell() {
	lost := a.forwarder.Snapshot().Lost
	for reason, n := range lost {
		if more := n - a.lost[reason]; more > 0 {
			a.drops.Drop("agent: "+reason, int(more))
		}
	}
	a.lost = lost
}

// close ends the receiver when the VM has: it reads what there is to its end.
func (a *agents) close() {
	a.stop()
	a.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), agentDrain)
	defer cancel()
	if err := a.forwarder.Close(ctx); err != nil {
		a.log.Warn("agent's spans were lost", "error", err)
	}
	a.each((*collate.Collator).Ended)
	a.tell()
}
