package shim

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/interpose"
	"github.com/shimtrace/shimtrace/internal/shim/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

// injector relays what the runtime asks the agent in the sandbox's VM, in the place
// of the VMM's socket.
type injector struct {
	requests   *requests
	interposer *interpose.Interposer
	serving    sync.WaitGroup
}

// startInjector takes the place of the VMM's socket as soon as there is one. The
// contexts of requests go into them where the agent's spans are to be in the
// sandbox's trace. It is nil, and the runtime has the agent to itself, if that cannot
// be.
func (r *relayProcess) startInjector(a *agents, kind *vmKind, mode collate.Mode) *injector {
	i := &injector{requests: newRequests(r.sandbox, a.own)}
	relay := r.requestRelay(i.requests, mode)
	var err error
	i.interposer, err = interpose.New(r.who.Sandbox, interpose.Options{
		Patterns: agentconfig.Sockets(r.cfg.Agent),
		Port:     r.cfg.Agent.Port,
		Relay:    relay.Connect,
		Owns:     a.shim.Owns,
		Pace:     a.making.pace,
		Taken:    func(string) { kind.isHybrid() },
		Warn:     r.warnOfRequests,
	})
	if err != nil {
		r.warnOfRequests(err)
		return nil
	}
	i.serving.Go(func() { i.interposer.Serve(kind.hybrid) })
	return i
}

// requestRelay relays requests to the agent, whose spans make their way as those of the
// shim's calls.
func (r *relayProcess) requestRelay(observer *requests, mode collate.Mode) *middleware.Relay {
	return middleware.NewRelay(
		r.sandbox.switched(),
		middleware.WithTracerProvider(r.tel.Provider),
		middleware.WithPropagator(agentPropagator(r.cfg.Trace, mode)),
		middleware.WithSpanKind(requestKind),
		middleware.WithMethods(agentconfig.Method),
		middleware.WithQuiet(time.Duration(r.cfg.Trace.Slow), agentconfig.QuietRequests(r.cfg)...),
		middleware.WithObserver(observer),
		middleware.WithEnd(r.sandbox.connectionEnded),
		middleware.WithExpected(observer.lives.Expected),
		middleware.WithErrorHandler(r.warnOfRequests),
	)
}

func (r *relayProcess) warnOfRequests(err error) { r.log.Warn("requests to the agent", "error", err) }

// requestDrain bounds how long connections to the agent may last once the runtime, which
// made them, is gone.
const requestDrain = 2 * time.Second

// close ends the relaying, when startInjector's context is done.
func (i *injector) close() error {
	i.serving.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), requestDrain)
	defer cancel()
	return i.interposer.Close(ctx)
}

// agentPropagator reads and writes contexts in the one form that Kata's runtime and
// agent know, W3C's, if that is among those to be used.
func agentPropagator(cfg config.Trace, mode collate.Mode) propagation.TextMapPropagator {
	switch {
	case !slices.Contains(cfg.Propagators, "tracecontext"):
		return propagation.NewCompositeTextMapPropagator()
	case mode == collate.Isolated:
		return reading{propagation.TraceContext{}}
	}
	return idsOnly{}
}

// idsOnly is W3C's form without what a caller may put beside the ids: the guest is to
// get nothing else of it.
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
