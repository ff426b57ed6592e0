package vmshim_test

import (
	"context"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"
	agentgrpc "github.com/kata-containers/kata-containers/src/runtime/virtcontainers/pkg/agent/protocols/grpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
	"github.com/shimtrace/shimtrace/middleware"
)

// told are the fields of requests that their spans tell, as what.
var told = map[string]struct {
	value any
	as    string
}{
	"ContainerId": {"c1", "container.id"},
	"ExecId":      {"sh", "shimtrace.exec.id"},
	"SandboxId":   {"pod", "shimtrace.sandbox.id"},
	"Signal":      {uint32(9), "shimtrace.signal"},
}

// TestRequestFields holds what the relay reads in requests to Kata's own definitions: of
// every request that its client can make, the span tells what the request has, and
// nothing that it has not.
func TestRequestFields(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	client := agentgrpc.NewAgentServiceClient(answerAll(t, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))
	methods := reflect.ValueOf(client)
	for i := range methods.NumMethod() {
		method := methods.Type().Method(i)
		request := reflect.New(method.Type.In(2).Elem())
		want := map[string]any{}
		for name, f := range told {
			if field := request.Elem().FieldByName(name); field.IsValid() {
				field.Set(reflect.ValueOf(f.value))
				want[f.as] = f.value
			}
		}
		if r := kata.RequestNamed(method.Name); r == nil || r.Health {
			t.Errorf("%s is not among what is known of the agent's requests", method.Name)
		}
		if method.Name == "WaitProcess" {
			want["process.exit.code"] = int64(7)
		}
		out := methods.Method(i).Call([]reflect.Value{reflect.ValueOf(t.Context()), request})
		if err, failed := out[1].Interface().(error); failed {
			t.Fatalf("%s: %v", method.Name, err)
		}
		eventually(t, method.Name+" has its span", func() bool { return len(spans.Ended()) > i })
		span := spans.Ended()[i]
		if span.Name() != agentService+method.Name {
			t.Errorf("%s shows as %s", method.Name, span.Name())
		}
		got := map[string]any{}
		for _, kv := range span.Attributes() {
			got[string(kv.Key)] = kv.Value.AsInterface()
		}
		for _, as := range []string{"container.id", "shimtrace.exec.id", "shimtrace.sandbox.id", "shimtrace.signal", "process.exit.code"} {
			if w := want[as]; w == uint32(9) && got[as] != int64(9) || w != uint32(9) && got[as] != w {
				t.Errorf("%s: %s is %v, want %v", method.Name, as, got[as], w)
			}
		}
	}
	if n := methods.NumMethod(); n < 30 {
		t.Errorf("Kata's client has %d methods", n)
	}
}

// answerAll returns a client of a server that answers every request as if a process had
// exited with 7, behind a relay.
func answerAll(t *testing.T, provider *sdktrace.TracerProvider) *ttrpc.Client {
	t.Helper()
	server, err := ttrpc.NewServer()
	check(t, err)
	methods := map[string]ttrpc.Method{}
	service := reflect.TypeFor[agentgrpc.AgentServiceService]()
	for i := range service.NumMethod() {
		answer := reflect.New(service.Method(i).Type.Out(0).Elem())
		if status := answer.Elem().FieldByName("Status"); status.IsValid() && status.Kind() == reflect.Int32 {
			status.SetInt(7)
		}
		methods[service.Method(i).Name] = func(context.Context, func(any) error) (any, error) {
			return answer.Interface().(proto.Message), nil
		}
	}
	server.Register("grpc.AgentService", methods)
	listen := func(name string) net.Listener {
		l, err := net.Listen("unix", filepath.Join(t.TempDir(), name))
		check(t, err)
		return l
	}
	behind, front := listen("s"), listen("r")
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(context.Background(), behind) })
	relay := middleware.NewRelay(middleware.WithTracerProvider(provider), middleware.WithMethods(agentconfig.Method))
	running.Go(func() {
		_ = relay.Serve(context.Background(), front, func(context.Context) (net.Conn, error) { return net.Dial("unix", behind.Addr().String()) })
	})
	conn, err := net.Dial("unix", front.Addr().String())
	check(t, err)
	client := ttrpc.NewClient(conn)
	t.Cleanup(func() {
		client.Close()
		front.Close()
		server.Close()
		running.Wait()
	})
	return client
}
