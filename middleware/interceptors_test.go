package middleware_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"go.opentelemetry.io/otel/baggage"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
)

// interception traces a server and its client with interceptors, without a relay.
func interception(t *testing.T, serverOpts, clientOpts []middleware.Option) *ttrpc.Client {
	t.Helper()
	addr := server(t, ttrpc.WithUnaryServerInterceptor(middleware.UnaryServerInterceptor(serverOpts...)))
	return client(t, addr, ttrpc.WithUnaryClientInterceptor(middleware.UnaryClientInterceptor(clientOpts...)))
}

// essence is what the spans of a relay and of the interceptors have in common.
type essence struct {
	name   string
	status sdktrace.Status
	attrs  map[string]any
}

func essenceOf(s sdktrace.ReadOnlySpan) essence {
	return essence{s.Name(), s.Status(), attrs(s)}
}

func (e essence) equal(f essence) bool {
	return e.name == f.name && e.status == f.status && maps.Equal(e.attrs, f.attrs)
}

// TestInterceptorsAndRelayAgree: three ways to the span of a call, one span.
func TestInterceptorsAndRelayAgree(t *testing.T) {
	relayOpt, relayRec := recorder()
	serverOpt, serverRec := recorder()
	clientOpt, clientRec := recorder()
	addr := server(t, ttrpc.WithUnaryServerInterceptor(middleware.UnaryServerInterceptor(serverOpt)))
	addr, _ = relay(t, addr, relayOpt)
	c := client(t, addr, ttrpc.WithUnaryClientInterceptor(middleware.UnaryClientInterceptor(clientOpt)))

	type test struct {
		service, method string
		req, answer     proto.Message
	}
	tests := []test{
		{taskService, "Create", &task.CreateTaskRequest{ID: "box", Bundle: "/b"}, new(task.CreateTaskResponse)},
		{taskService, "Create", &task.CreateTaskRequest{ID: "missing"}, new(task.CreateTaskResponse)},
		{taskService, "Kill", &task.KillRequest{ID: "box", ExecID: "sh", Signal: 9}, new(emptypb.Empty)},
		{taskService, "Wait", &task.WaitRequest{ID: "box"}, new(task.WaitResponse)},
		{taskService, "Delete", &task.DeleteRequest{ID: "box"}, new(task.DeleteResponse)},
		{echoService, "Fail", wrapperspb.UInt32(99), new(emptypb.Empty)},
	}
	for _, name := range slices.Sorted(maps.Keys(errPlain)) {
		tests = append(tests, test{echoService, "FailPlainly", wrapperspb.String(name), new(emptypb.Empty)})
	}
	for i, tt := range tests {
		c.Call(context.Background(), tt.service, tt.method, tt.req, tt.answer)
		relayed := essenceOf(ended(t, relayRec, i+1)[i])
		if got := essenceOf(ended(t, serverRec, i+1)[i]); !got.equal(relayed) {
			t.Errorf("%s %v: server's span %v, relay's %v", tt.method, tt.req, got, relayed)
		}
		if got := essenceOf(ended(t, clientRec, i+1)[i]); !got.equal(relayed) {
			t.Errorf("%s %v: client's span %v, relay's %v", tt.method, tt.req, got, relayed)
		}
	}
}

// TestInterceptorsChain: the server's span is the client's child, whose parent is
// the caller's, and baggage goes along.
func TestInterceptorsChain(t *testing.T) {
	serverOpt, serverRec := recorder()
	clientOpt, clientRec := recorder()
	forms := propagators("tracecontext", "baggage")
	c := interception(t, []middleware.Option{serverOpt, forms}, []middleware.Option{clientOpt, forms})

	member, err := baggage.NewMember("user", "alice")
	if err != nil {
		t.Fatal(err)
	}
	bag, err := baggage.New(member)
	if err != nil {
		t.Fatal(err)
	}
	ctx := trace.ContextWithSpanContext(context.Background(), callerSpan)
	ctx = baggage.ContextWithBaggage(ctx, bag)
	// What is in the metadata of old is replaced.
	md := carrying(sandboxSpan)
	md.Set("baggage", "old=1")
	md["TraceParent"] = []string{"old as well"}
	md.Set("other", "stays")
	seen := seenBy(t, c, nil)
	if len(seen) != 1 {
		t.Errorf("without anything to carry on, the server sees %v", seen)
	}
	var answer wrapperspb.BytesValue
	if err := c.Call(ttrpc.WithMetadata(ctx, md), echoService, "Metadata", new(emptypb.Empty), &answer); err != nil {
		t.Fatal(err)
	}
	client, server := ended(t, clientRec, 2)[1], ended(t, serverRec, 2)[1]
	if client.SpanKind() != trace.SpanKindClient || server.SpanKind() != trace.SpanKindServer {
		t.Errorf("kinds %v and %v", client.SpanKind(), server.SpanKind())
	}
	if client.Parent().SpanID() != callerSpan.SpanID() || server.Parent().SpanID() != client.SpanContext().SpanID() || !server.Parent().IsRemote() {
		t.Errorf("client's parent %v, server's %v", client.Parent(), server.Parent())
	}
	for _, want := range []string{`"baggage":["user=alice"]`, `"other":["stays"]`, client.SpanContext().SpanID().String()} {
		if !strings.Contains(string(answer.Value), want) {
			t.Errorf("the server sees %s, without %s", answer.Value, want)
		}
	}
	for _, gone := range []string{"TraceParent", "old"} {
		if strings.Contains(string(answer.Value), gone) {
			t.Errorf("the server sees %s, with %s", answer.Value, gone)
		}
	}
	if md["traceparent"][0] != carrying(sandboxSpan)["traceparent"][0] || len(md) != 4 {
		t.Errorf("the caller's own metadata became %v", md)
	}
}

// The handler finds the span in its context.
func TestServerInterceptorContext(t *testing.T) {
	provider, rec := recorder()
	intercept := middleware.UnaryServerInterceptor(provider, middleware.WithQuiet(0, "Quiet"))
	for method, sampled := range map[string]bool{"Loud": true, "Quiet": false} {
		info := &ttrpc.UnaryServerInfo{FullMethod: "/svc/" + method}
		_, err := intercept(context.Background(), nil, info, func(ctx context.Context, _ func(any) error) (any, error) {
			if sc := trace.SpanContextFromContext(ctx); !sc.IsValid() || sc.IsSampled() != sampled {
				t.Errorf("%s: handler's context is %v", method, sc)
			}
			return new(emptypb.Empty), nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if s := ended(t, rec, 1)[0]; s.Name() != "svc/Loud" {
		t.Errorf("span %q", s.Name())
	}
}

func TestInterceptorsPassErrors(t *testing.T) {
	c := interception(t, tracing(), tracing())
	err := c.Call(context.Background(), taskService, "State", &task.StateRequest{ID: "missing"}, new(task.StateResponse))
	if status.Code(err) != codes.NotFound {
		t.Errorf("call ended with %v", err)
	}
	c.Close()
	c.UserOnCloseWait(context.Background())
	err = c.Call(context.Background(), taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse))
	if !errors.Is(err, ttrpc.ErrClosed) {
		t.Errorf("call ended with %v, want %v", err, ttrpc.ErrClosed)
	}
}

func TestClientInterceptorOfAClosedConnection(t *testing.T) {
	provider, rec := recorder()
	intercept := middleware.UnaryClientInterceptor(provider)
	err := intercept(context.Background(), &ttrpc.Request{Service: "s", Method: "m"}, new(ttrpc.Response), nil,
		func(context.Context, *ttrpc.Request, *ttrpc.Response) error { return ttrpc.ErrClosed })
	if err != ttrpc.ErrClosed {
		t.Errorf("returned %v", err)
	}
	if s := ended(t, rec, 1)[0]; attrs(s)["error.type"] != "UNAVAILABLE" {
		t.Errorf("span has %v", attrs(s))
	}
}

func TestInterceptorsSurvivePanics(t *testing.T) {
	for _, where := range []string{"Parent", "Answered", "Annotate"} {
		t.Run(where, func(t *testing.T) {
			opts := func() []middleware.Option {
				provider, _ := recorder()
				return []middleware.Option{provider, middleware.WithErrorHandler(func(error) {}),
					middleware.WithObserver(&panicking{where: where, left: 99})}
			}
			c := interception(t, opts(), opts())
			var answer task.CreateTaskResponse
			if err := c.Call(context.Background(), taskService, "Create", &task.CreateTaskRequest{ID: "box"}, &answer); err != nil || answer.Pid != 42 {
				t.Errorf("pid %d, %v", answer.Pid, err)
			}
		})
	}
}
