package kata

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/exporttest"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/middleware"
)

const (
	taskService    = "containerd.task.v3.Task"
	requestService = "grpc.AgentService"
)

// chain is a client, a runtime that asks an agent before it answers the client, and the
// agent; what they say passes two relays that are set up as the relay process's.
type chain struct {
	*pod
	kata   *Observer
	t      *testing.T
	spans  *exporttest.Recorder
	client *ttrpc.Client // of the runtime
	stop   func()        // returns when all is recorded

	runtime *ttrpc.Client       // the runtime's, of the agent
	asks    map[string][]string // of the agent, by the client's method: "CreateContainer c1"
	send    ttrpc.MD            // with the runtime's requests
	caller  ttrpc.MD            // with the client's calls

	mu   sync.Mutex
	seen map[string]trace.SpanContext // by the agent, with its requests
	keys []string                     // of what came with these
}

// newChain starts one. The agent fails what is about the container "bad", and takes
// its time for "slow".
func newChain(t *testing.T, cfg config.Trace, isolated bool, asks map[string][]string) *chain {
	t.Helper()
	c := &chain{t: t, spans: new(exporttest.Recorder), asks: asks, seen: map[string]trace.SpanContext{}}
	provider := export.NewTracerProvider(cfg, c.spans)
	c.pod = newPod(t, cfg)
	own := collate.New(collate.Options{Options: calls.Options{Root: c.Root(), Isolated: isolated, Quiet: cfg.Quiet}, Sink: func(*resourcepb.Resource, string, []byte, int) {}})
	tel := &telemetry.Telemetry{Provider: provider, Tracer: provider.Tracer(names.ShimScope)}
	c.kata = &Observer{
		Options: Options{Guard: unguarded{}, Config: config.Config{Trace: cfg, Agent: config.Default().Agent}, Telemetry: tel, Log: slog.New(slog.DiscardHandler)},
		sandbox: c.pod, own: own, making: making{pace: vmmdir.NewPace(0)}, injector: &injector{requests: newRequests(tel.Tracer, c.pod, own.Calls)},
	}
	agent, endAgent := serve(t, requestService, c.serveAgent, c.kata.requestRelay(c.kata.injector.requests, isolated))
	c.runtime = agent
	client, endRuntime := serve(t, taskService, c.serveRuntime, middleware.NewRelay(
		middleware.WithTracerProvider(provider), middleware.WithPropagator(propagation.TraceContext{}), middleware.WithQuiet(time.Duration(cfg.Slow), cfg.Quiet...), middleware.WithObserver(c.kata, c.pod)))
	c.client = client
	c.stop = sync.OnceFunc(func() { endRuntime(); endAgent() })
	t.Cleanup(c.stop)
	return c
}

// call calls the runtime for a container, and ignores that it may fail.
func (c *chain) call(method, container string) {
	_ = c.client.Call(ttrpc.WithMetadata(context.Background(), c.caller), taskService, method, about(container), new(emptypb.Empty))
}

// serveRuntime answers a call when the agent has answered all that it causes.
func (c *chain) serveRuntime(_ context.Context, method, _ string) error {
	var failed error
	for _, ask := range c.asks[method] {
		request, container, _ := strings.Cut(ask, " ")
		ctx := ttrpc.WithMetadata(context.Background(), c.send)
		if err := c.runtime.Call(ctx, requestService, request, about(container), new(emptypb.Empty)); err != nil {
			failed = err
		}
	}
	if method == "Stats" {
		return nil // whatever comes of it
	}
	return failed
}

func (c *chain) serveAgent(ctx context.Context, method, container string) error {
	md, _ := ttrpc.GetMetadata(ctx)
	carrier := propagation.MapCarrier{}
	for key, values := range md {
		carrier[key] = strings.Join(values, ",")
	}
	c.mu.Lock()
	for key := range md {
		if !slices.Contains(c.keys, key) {
			c.keys = append(c.keys, key)
		}
	}
	c.seen[method+" "+container] = trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, carrier))
	c.mu.Unlock()
	switch container {
	case "bad":
		return status.Error(codes.Internal, "no such container")
	case "slow":
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// one returns the one span of a method.
func (c *chain) one(method string) sdktrace.ReadOnlySpan {
	c.t.Helper()
	all := c.named(method)
	if len(all) != 1 {
		c.t.Fatalf("%d spans of %s, want 1", len(all), method)
	}
	return all[0]
}

func (c *chain) named(method string) []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(c.spans.Ended(), func(s sdktrace.ReadOnlySpan) bool {
		return s.Name() != method && !strings.HasSuffix(s.Name(), "/"+method)
	})
}

// about is a message about a container, as shims and agents have them: the id first.
func about(container string) *emptypb.Empty {
	m := new(emptypb.Empty)
	m.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), container))
	return m
}

// traceparent is metadata with a context.
func traceparent(sc trace.SpanContext) ttrpc.MD {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), sc), carrier)
	return ttrpc.MD{"traceparent": {carrier["traceparent"]}}
}

// serve starts a service behind a relay, whose methods all are f, and a client.
func serve(t *testing.T, service string, f func(ctx context.Context, method, container string) error, relay *middleware.Relay) (*ttrpc.Client, func()) {
	t.Helper()
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]ttrpc.Method{}
	for _, name := range []string{
		"Create", "Start", "Kill", "Stats",
		"CreateSandbox", "CreateContainer", "StartContainer", "SignalProcess", "StatsContainer", "WaitProcess",
	} {
		methods[name] = func(ctx context.Context, unmarshal func(any) error) (any, error) {
			m := new(emptypb.Empty)
			if err := unmarshal(m); err != nil {
				return nil, err
			}
			id, _ := protowire.ConsumeString(m.ProtoReflect().GetUnknown()[1:])
			return new(emptypb.Empty), f(ctx, name, id)
		}
	}
	server.Register(service, methods)
	behind, front := listenAt(t), listenAt(t)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(context.Background(), behind) })
	dial := func(context.Context) (net.Conn, error) { return net.Dial("unix", behind.Addr().String()) }
	running.Go(func() { _ = relay.Serve(context.Background(), front, dial) })
	conn, err := net.Dial("unix", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	return client, func() {
		client.Close()
		front.Close()
		server.Close()
		running.Wait()
	}
}

func listenAt(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
