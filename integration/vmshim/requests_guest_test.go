package vmshim_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/client"
	agentgrpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/interpose"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

// TestRequestsGuest: the agent in a real VM, behind its VSOCK, has as parents of its
// spans those of the requests to it, whoever asks: a client that dials as Kata's Rust
// runtime does, from before the VM boots, and over the agent's end; then the Go
// runtime's own.
func TestRequestsGuest(t *testing.T) {
	dir := t.TempDir()
	pattern := []listen.Pattern{{VMM: "test", Path: filepath.Join(dir, "{sandbox}", "vm.sock")}}
	socket := filepath.Join(dir, "pod", "vm.sock")
	relay := startRelay(t, "pod", pattern)
	agents := collectAgents(t, "pod", pattern)

	program := agent.Program(t)
	check(t, os.Mkdir(filepath.Dir(socket), 0o700))
	vm.StartHybrid(t, vm.HybridOptions{
		Socket: socket,
		Files:  map[string]string{"bin/agent": program},
		// It ends with its sandbox, for another one to begin.
		Services: []string{"while agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 20 --stdout-bytes " + fmt.Sprint(outputSize) + "; do :; done"},
	})

	rust := dialAsRust(t, socket)
	for _, ask := range []string{
		"CreateSandbox 5=pod", "CreateContainer 1=c1 2=c1", "StartContainer 1=c1", "SignalProcess 1=c1 2=c1 3:9", "WaitProcess 1=c1 2=c1",
	} {
		rust.ask(ask, "ok")
	}
	rust.ask("StartContainer 1=missing", "error 13 Invalid container id")
	rust.reconnect()
	rust.ask("RemoveContainer 1=c1", "ok")
	rust.tell("call DestroySandbox") // the agent's end can come before its answer
	eventually(t, "the agent has ended", func() bool { return agents.ended.Load() == 1 })
	rust.reconnect()
	rust.ask("grpc.Health/Check", "ok")
	rust.ask("CreateSandbox 5=again", "ok")
	relay.checkUnder(t, agents, "create_sandbox", "create_container", "start_container", "signal_process", "remove_container", "destroy_sandbox")

	kata, err := client.NewAgentClient(t.Context(), "hvsock://"+socket+":1024", 60)
	check(t, err)
	defer kata.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := kata.AgentServiceClient
	_, err = a.CreateContainer(ctx, &agentgrpc.CreateContainerRequest{ContainerId: "c2", ExecId: "c2", OCI: &agentgrpc.Spec{}})
	check(t, err)
	_, err = a.ExecProcess(ctx, &agentgrpc.ExecProcessRequest{ContainerId: "c2", ExecId: "sh", Process: &agentgrpc.Process{}})
	check(t, err)
	_, err = a.PauseContainer(ctx, &agentgrpc.PauseContainerRequest{ContainerId: "c2"})
	check(t, err)
	readOutput(t, a, "c3")
	_, _ = a.DestroySandbox(ctx, &agentgrpc.DestroySandboxRequest{})
	relay.checkUnder(t, agents, "create_container", "exec_process", "pause_container", "destroy_sandbox")
	if c := relay.interposer.Counts(); c.Relayed < 4 {
		t.Errorf("%+v, want 4 relayed: three of Rust, one of Go", c)
	}
}

// requestRelay is what the shim's relay does with requests to an agent.
type requestRelay struct {
	interposer *interpose.Interposer
	spans      *tracetest.SpanRecorder
}

func startRelay(t testing.TB, sandbox string, patterns []listen.Pattern) *requestRelay {
	t.Helper()
	r := &requestRelay{spans: tracetest.NewSpanRecorder()}
	relay := middleware.NewRelay(
		middleware.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r.spans))),
		middleware.WithPropagator(propagation.TraceContext{}),
		middleware.WithSpanKind(trace.SpanKindClient),
		middleware.WithMethods(agentconfig.Method),
	)
	var err error
	r.interposer, err = interpose.New(sandbox, interpose.Options{Patterns: patterns, Relay: relay.Connect, Warn: func(err error) { t.Error(err) }})
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { r.interposer.Serve(ctx) })
	t.Cleanup(func() {
		stop()
		serving.Wait()
		closing, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := r.interposer.Close(closing); err != nil {
			t.Error(err)
		}
	})
	return r
}

// checkUnder waits until the agent has sent spans of all these names since the last
// time, and holds them to being under the requests that they are named after.
func (r *requestRelay) checkUnder(t *testing.T, agents *agentSpans, names ...string) {
	t.Helper()
	var got []span.Span
	missing := names
	for deadline := time.Now().Add(patience); len(missing) > 0; time.Sleep(20 * time.Millisecond) {
		got = append(got, agents.take()...)
		missing = slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return slices.ContainsFunc(got, func(s span.Span) bool { return s.Name == name })
		})
		if time.Now().After(deadline) {
			t.Fatalf("no %v came out of the VM", missing)
		}
	}
	var wrong []string
	defer func() {
		for _, w := range wrong {
			t.Error(w)
		}
	}()
	// A request's span ends after its answer, or with its connection.
	eventually(t, "the agent's spans to be under their requests", func() bool {
		wrong = nil
		requests := map[string]string{} // their methods, by their contexts
		for _, s := range r.spans.Ended() {
			sc := s.SpanContext()
			requests[sc.TraceID().String()+sc.SpanID().String()] = s.Name()
		}
		for _, s := range got {
			if !isRPC(s.Name) {
				continue
			}
			request := requests[hex.EncodeToString(s.TraceID[:])+hex.EncodeToString(s.ParentID[:])]
			if snake(request) != s.Name {
				wrong = append(wrong, fmt.Sprintf("%s is under %q", s.Name, request))
			}
		}
		return len(wrong) == 0
	})
}

// agentSpans are what the agent in a VM sends.
type agentSpans struct {
	ended atomic.Int32 // their connections

	mu    sync.Mutex
	spans []span.Span
}

func (a *agentSpans) Span(_ forwarder.ConnInfo, s *span.Span) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spans = append(a.spans, *s)
}

func (a *agentSpans) Closed(forwarder.ConnInfo, error) { a.ended.Add(1) }

func (a *agentSpans) take() []span.Span {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.spans
	a.spans = nil
	return all
}

func collectAgents(t *testing.T, sandbox string, patterns []listen.Pattern) *agentSpans {
	t.Helper()
	a := new(agentSpans)
	f := forwarder.New(forwarder.Options{Sink: a})
	l, err := listen.NewHybrid(sandbox, listen.HybridOptions{Patterns: patterns, Warn: func(err error) { t.Error(err) }}, f.Take)
	check(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { l.Serve(ctx) })
	t.Cleanup(func() {
		stop()
		serving.Wait()
		done, cancel := context.WithCancel(context.Background())
		cancel() // the agent lives as long as its VM
		_ = f.Close(done)
	})
	return a
}
