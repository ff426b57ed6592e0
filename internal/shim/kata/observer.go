package kata

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/shim/expected"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/internal/shim/server"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

const (
	// agentDrain bounds how long the relay, at its end, reads on what the agent has sent.
	agentDrain = 5 * time.Second
	// agentSilence is for a VM that lives on without its inner shim: its agent ends its last
	// spans, root-span among them, only when it has answered all requests. The connection of a
	// VM that is over ends at once.
	agentSilence = time.Second
	// vmTime is how long a VM is expected without a call that would make one.
	vmTime = 2 * time.Minute
)

// Sandbox is what the relay knows of the sandbox. Its methods must not block.
type Sandbox interface {
	// On reports whether anything is recorded now.
	On() bool
	// Root returns the context of the span that what is recorded belongs under.
	Root() trace.SpanContext
	// Attributes returns the span attributes of a container, as far as they are known.
	Attributes(container string) []attribute.KeyValue
	// Switch is what turns tracing on and off; nil: it is always on.
	Switch() *middleware.Switch
	// Unrecorded counts spans of a time when tracing was off.
	Unrecorded(spans int)
	// Changed is called when Observer.Save would return something else.
	Changed()
}

// Options are what an Observer is made of.
type Options struct {
	Config config.Config
	Who    state.Identity
	// Container is the id that the inner shim was started with.
	Container string
	Telemetry *telemetry.Telemetry
	Log       *slog.Logger
	// Guard keeps what another process needs, and Left is what one has left.
	Guard Guard
	Left  Left
	// Held is forwarder.Options.Held.
	Held *atomic.Int64
}

// Observer is all that is done for the sandbox beyond its calls, which it observes. It is
// made before the inner shim serves, and has work from Start on.
type Observer struct {
	middleware.NopObserver
	Options
	runtimes *runtimeSpans // nil unless the runtime's spans are received

	sandbox   Sandbox
	changed   atomic.Pointer[config.Config] // what Options.Config has become since; nil: it is the same
	state     state.State                   // as it was at Start
	own       *collate.Collator
	forwarder *forwarder.Forwarder
	injector  *injector // nil where requests are not relayed
	shim      *listen.Shim
	making    making // the VM
	boot      boot   // the same, as far as it is seen from outside
	cid       atomic.Uint32
	lives     *expected.Lives // that another process has followed; nil: none has

	keeping   sync.Mutex
	listeners map[vmmdir.ID]string // names of entries, by the socket's file
	incoming  map[string]*handover.Incoming

	stop    context.CancelFunc
	turning func() // stops turning agents away
	running sync.WaitGroup
}

// forKata tells what a setting means for an inner shim: "auto" is on for those of Kata,
// whose containers live in VMs with agents.
func forKata(setting, inner string) bool {
	return setting == "on" || setting == "auto" && kata.IsShim(inner)
}

// New returns an Observer that does for the sandbox what is configured, nil if that is
// nothing. The endpoint for runtimes' spans is there when it returns.
func New(o Options) *Observer {
	k := &Observer{Options: o, making: making{pace: vmmdir.NewPace(vmTime)}, listeners: make(map[vmmdir.ID]string), incoming: make(map[string]*handover.Incoming)}
	k.runtimes = k.openRuntimes()
	if k.runtimes == nil && !k.wants(o.Config.Agent.Receive) && !k.wants(o.Config.Agent.Inject) {
		return nil
	}
	return k
}

// wants reports whether a setting is on for the sandbox.
func (o *Observer) wants(setting string) bool { return forKata(setting, o.Who.Inner) }

// Start has the work begin, for a sandbox whose inner shim serves. What fails is logged.
func (o *Observer) Start(sandbox Sandbox, st state.State) {
	o.sandbox, o.state = sandbox, st
	o.boot.tracer = o.Telemetry.Tracer
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.shim = &listen.Shim{Find: func() host.Process { return server.Find(o.Who.Inner, o.Container, st.InnerSock, st.InnerPID) }}
	o.forwarder = forwarder.New(forwarder.Options{
		Limits:    agentconfig.Limits(o.Config.Agent),
		Collation: o.collation,
		Journal:   o.Telemetry.Queue,
		Warn:      o.warnOfSpans,
		Held:      o.Held,
		Silence:   agentSilence,
	})
	o.own = o.forwarder.Sandbox(o.Who.Sandbox)
	o.running.Go(func() { o.forwarder.Run(ctx) })
	o.restore()
	o.resumeAgents()
	kind := newVMKind(ctx)
	if o.wants(o.Config.Agent.Receive) {
		o.listenForAgents(ctx, kind)
	} else {
		o.turning = GiveBack(o.Guard, Left{Entries: o.left(entryHybrid)}, o.Config.Agent, o.Who, o.warnOfSpans)
	}
	if o.wants(o.Config.Agent.Inject) {
		o.injector = o.startInjector(kind)
	} else {
		GiveBack(o.Guard, Left{Entries: o.left(entrySeat), Requests: o.Left.Requests}, o.Config.Agent, o.Who, o.warnOfRequests)
	}
	if o.runtimes != nil {
		o.runtimes.serve(o)
	}
}

func (o *Observer) warnOfSpans(err error) { o.Log.Warn("agent's spans", "error", err) }

// Change has another configuration in effect, for what begins from now on: what is quiet, the
// propagators, what is kept of the agent's spans, and the limits of these.
func (o *Observer) Change(cfg config.Config) {
	o.changed.Store(&cfg)
	if o.own != nil {
		o.own.SetRules(agentconfig.Rules(cfg))
		o.own.SetBounds(agentconfig.Isolated(cfg))
		o.forwarder.SetLimits(agentconfig.Limits(cfg.Agent))
	}
	if o.injector != nil {
		o.injector.relay.Load().Change(o.changeable(o.isolated())...)
	}
}

// current is the configuration as it is now.
func (o *Observer) current() config.Config {
	if cfg := o.changed.Load(); cfg != nil {
		return *cfg
	}
	return o.Config
}

// Opened is called when a window of tracing has begun, with its root span.
func (o *Observer) Opened(root trace.SpanContext, at time.Time) { o.own.SetRoot(root, at) }

// Closed is called when the window has ended.
func (o *Observer) Closed(at time.Time) { o.own.EndRoot(at) }

var _ middleware.Observer = (*Observer)(nil)

// Began implements middleware.Observer.
func (o *Observer) Began(c *middleware.Call) {
	if o.injector != nil {
		o.injector.requests.quiet.began(c)
	}
	o.making.began(c)
	o.boot.began(c)
	o.own.Call(collateCall(c))
}

// Answered implements middleware.Observer.
func (o *Observer) Answered(c *middleware.Call) {
	o.making.over(c, false)
	o.boot.ended(c)
	o.over(c, answeredCall(c))
}

// Lost implements middleware.Observer.
func (o *Observer) Lost(c *middleware.Call) {
	o.making.over(c, true)
	o.boot.ended(c)
	o.over(c, lostCall(c))
}

func (o *Observer) over(c *middleware.Call, call calls.Call) {
	if o.injector != nil {
		o.injector.requests.quiet.ended(c)
	}
	o.own.Call(call)
}

// Leave has everything stop where another process can go on, and returns how to go on
// here after all, with the connections of EntryRequest.
func (o *Observer) Leave() (goOn func([]func(*middleware.Relay)), err error) {
	if o.injector != nil {
		if err := o.injector.relay.Load().Leave(); err != nil {
			return nil, err
		}
	}
	o.keeping.Lock()
	defer o.keeping.Unlock()
	for _, kept := range o.incoming {
		kept.Leave()
	}
	return func(requests []func(*middleware.Relay)) {
		if o.injector != nil {
			o.injector.resume(o.requestRelay(o.injector.requests, o.isolated()), requests)
		}
		// The agent's connections are not read any more: better that it sees their end.
		o.keeping.Lock()
		defer o.keeping.Unlock()
		for name, kept := range o.incoming {
			o.Guard.Remove(name)
			kept.Conn.Close()
		}
	}, nil
}

// Close ends the Observer when the inner shim and its VM have ended: it takes what the
// runtime has posted, and reads what the agent has sent, to the end.
func (o *Observer) Close() {
	if o.runtimes != nil {
		o.runtimes.close()
	}
	if o.stop == nil {
		return
	}
	o.stop()
	if o.turning != nil {
		o.turning()
	}
	o.running.Wait()
	if o.injector != nil {
		if err := o.injector.close(); err != nil {
			o.Log.Warn("requests to the agent were cut off", "error", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), agentDrain)
	defer cancel()
	if err := o.forwarder.Close(ctx); err != nil {
		o.Log.Warn("agent's spans were lost", "error", err)
	}
	o.boot.make()
}
