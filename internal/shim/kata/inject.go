package kata

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder/interpose"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

// injector relays what the runtime asks the agent in the sandbox's VM, in the place
// of the VMM's socket.
type injector struct {
	requests   *requests
	relay      atomic.Pointer[middleware.Relay]
	interposer *interpose.Interposer
	serving    sync.WaitGroup
	resumed    sync.WaitGroup // connections that another process relayed
}

// resume goes on with connections that another relay has handed over.
func (i *injector) resume(relay *middleware.Relay, connections []func(*middleware.Relay)) {
	i.relay.Store(relay)
	for _, resume := range connections {
		i.resumed.Go(func() { resume(relay) })
	}
}

// startInjector takes the place of the VMM's socket as soon as there is one. The
// contexts of requests go into them where the agent's spans are to be in the
// sandbox's trace. It is nil, and the runtime has the agent to itself, if that cannot
// be.
func (o *Observer) startInjector(kind *vmKind) *injector {
	i := &injector{requests: newRequests(o.Telemetry.Tracer, o.sandbox, o.own.Calls)}
	if o.lives != nil {
		i.requests.lives = o.lives
	}
	i.requests.answered = o.boot.answered
	i.resume(o.requestRelay(i.requests, o.isolated()), o.Left.Requests)
	var err error
	i.interposer, err = interpose.New(o.Who.Sandbox, interpose.Options{
		Patterns: agentconfig.Sockets(o.Config.Agent),
		Port:     o.Config.Agent.Port,
		Relay:    func(client, server net.Conn) { i.relay.Load().Connect(client, server) },
		Owns:     o.shim.Owns,
		Pace:     o.making.pace,
		Taken:    func(s interpose.Seat) { kind.isHybrid(); o.boot.listens(s.Hold); o.taken(s) },
		Left:     o.seatLeft,
		Seats:    o.seats(),
		Warn:     o.warnOfRequests,
	})
	if err != nil {
		o.warnOfRequests(err)
		return nil
	}
	o.boot.attempts = func() uint64 { return i.interposer.Counts().Attempts }
	i.serving.Go(func() { i.interposer.Serve(kind.hybrid) })
	return i
}

// requestRelay returns what relays requests to the agent. The requests' spans go where
// those of the shim's calls go.
func (o *Observer) requestRelay(observer *requests, isolated bool) *middleware.Relay {
	return middleware.NewRelay(append(o.changeable(isolated),
		middleware.WithSwitch(o.sandbox.Switch()),
		middleware.WithTracerProvider(o.Telemetry.Provider),
		middleware.WithSpanKind(requestKind),
		middleware.WithMethods(agentconfig.Method),
		middleware.WithObserver(observer),
		middleware.WithEnd(observer.connectionEnded),
		middleware.WithExpected(observer.lives.Expected),
		middleware.WithErrorHandler(o.warnOfRequests),
		o.Guard.Handover(EntryRequest),
	)...)
}

// changeable are the options of the relay of requests that follow the configuration.
func (o *Observer) changeable(isolated bool) []middleware.Option {
	cfg := o.current()
	return []middleware.Option{
		middleware.WithPropagator(agentPropagator(cfg.Trace, isolated)),
		middleware.WithQuiet(time.Duration(cfg.Trace.Slow), agentconfig.QuietRequests(cfg)...),
	}
}

func (o *Observer) warnOfRequests(err error) { o.Log.Warn("requests to the agent", "error", err) }

// requestDrain bounds how long connections to the agent may last once the runtime, which
// made them, is gone.
const requestDrain = 2 * time.Second

// close ends the relaying, when startInjector's context is done.
func (i *injector) close() error {
	i.serving.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), requestDrain)
	defer cancel()
	err := i.interposer.Close(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		i.resumed.Wait()
	}()
	select {
	case <-over:
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

// RestoreSocket gives the VMM's socket its name back after a relay has died in its place,
// if relays take that place for this inner shim at all: the shim may have to talk to the
// agent to clean up.
func RestoreSocket(cfg config.Agent, sandbox, inner string) error {
	if cfg.Inject != "on" && !forKata("auto", inner) {
		return nil
	}
	return interpose.Restore(sandbox, agentconfig.Sockets(cfg))
}

// agentPropagator reads and writes contexts in the one form that Kata's runtime and
// agent know, W3C's, if that is among those to be used.
func agentPropagator(cfg config.Trace, isolated bool) propagation.TextMapPropagator {
	switch {
	case !slices.Contains(cfg.Propagators, "tracecontext"):
		return propagation.NewCompositeTextMapPropagator()
	case isolated:
		return reading{propagation.TraceContext{}}
	}
	return idsOnly{}
}

// idsOnly is W3C's form without what a caller may put beside the ids: the guest is to get
// nothing else of the context.
type idsOnly struct{ propagation.TraceContext }

// Inject implements propagation.TextMapPropagator. The keys that it replaces, or removes,
// are those of both of W3C's.
func (p idsOnly) Inject(ctx context.Context, c propagation.TextMapCarrier) {
	sc := trace.SpanContextFromContext(ctx).WithTraceState(trace.TraceState{})
	p.TraceContext.Inject(trace.ContextWithSpanContext(ctx, sc), c)
}

// reading is a propagator that only reads.
type reading struct{ propagation.TextMapPropagator }

func (reading) Inject(context.Context, propagation.TextMapCarrier) {}

func (reading) Fields() []string { return nil }
