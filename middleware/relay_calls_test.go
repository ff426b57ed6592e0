package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
)

// ways are the ways to one server: without a relay, and with one.
func ways(t *testing.T, opts ...middleware.Option) (direct, relayed *ttrpc.Client) {
	t.Helper()
	addr := server(t)
	relayAddr, _ := relay(t, addr, opts...)
	return client(t, addr), client(t, relayAddr)
}

// tracing is what a relay does in full: record and inject.
func tracing() []middleware.Option {
	provider, _ := recorder()
	return []middleware.Option{provider, propagators("tracecontext", "baggage")}
}

func propagators(names ...string) middleware.Option {
	p, err := middleware.Propagator(names...)
	if err != nil {
		panic(err)
	}
	return middleware.WithPropagator(p)
}

// result is all that a client learns of a call.
type result struct {
	answer []byte
	code   codes.Code
	err    string
}

func call(c *ttrpc.Client, timeout time.Duration, service, method string, req proto.Message, answer proto.Message) result {
	ctx := context.Background()
	if timeout > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	err := c.Call(ctx, service, method, req, answer)
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(answer)
	if err != nil {
		return result{b, status.Code(err), err.Error()}
	}
	return result{answer: b}
}

func TestRelayedCallsEndAsDirectOnes(t *testing.T) {
	direct, relayed := ways(t, tracing()...)
	type test struct {
		service, method string
		req, answer     proto.Message
		timeout         time.Duration
	}
	tests := map[string]test{
		"unary":            {taskService, "State", &task.StateRequest{ID: "box", ExecID: "sh"}, new(task.StateResponse), 0},
		"empty messages":   {echoService, "Echo", new(wrapperspb.BytesValue), new(wrapperspb.BytesValue), 0},
		"error":            {taskService, "Create", &task.CreateTaskRequest{ID: "missing"}, new(task.CreateTaskResponse), 0},
		"unknown service":  {"containerd.task.v9.Task", "State", new(emptypb.Empty), new(emptypb.Empty), 0},
		"unknown method":   {taskService, "Dance", new(emptypb.Empty), new(emptypb.Empty), 0},
		"no name at all":   {"", "", new(emptypb.Empty), new(emptypb.Empty), 0},
		"timeout":          {echoService, "Late", new(emptypb.Empty), new(emptypb.Empty), 20 * time.Millisecond},
		"deadline arrives": {echoService, "Deadline", new(emptypb.Empty), new(wrapperspb.StringValue), time.Minute},
		"no deadline":      {echoService, "Deadline", new(emptypb.Empty), new(wrapperspb.StringValue), 0},
		"wrong message":    {echoService, "Fail", wrapperspb.String("not a number"), new(emptypb.Empty), 0},
	}
	for code := range codes.Code(20) {
		tests[fmt.Sprint("code ", code)] = test{echoService, "Fail", wrapperspb.UInt32(uint32(code)), new(emptypb.Empty), 0}
	}
	for name := range errPlain {
		tests["plain error "+name] = test{echoService, "FailPlainly", wrapperspb.String(name), new(emptypb.Empty), 0}
	}
	for _, size := range []int{1, 4 << 10, 4<<10 + 1, 64 << 10, 1 << 20, 4<<20 - 200} {
		tests[fmt.Sprint("payload of ", size)] = test{echoService, "Echo", wrapperspb.Bytes(bytes.Repeat([]byte{7}, size)), new(wrapperspb.BytesValue), 0}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := call(direct, tt.timeout, tt.service, tt.method, tt.req, tt.answer)
			proto.Reset(tt.answer)
			got := call(relayed, tt.timeout, tt.service, tt.method, tt.req, tt.answer)
			if !bytes.Equal(got.answer, want.answer) || got.code != want.code || got.err != want.err {
				t.Errorf("relayed %.200v, direct %.200v", got, want)
			}
		})
	}
	// What is too long for ttrpc's client never leaves it, and harms nothing after.
	if err := direct.Call(context.Background(), echoService, "Echo", wrapperspb.Bytes(make([]byte, 5<<20)), new(wrapperspb.BytesValue)); err == nil {
		t.Error("ttrpc takes 5 MiB now")
	}
}

func TestRelayedStreams(t *testing.T) {
	direct, relayed := ways(t, tracing()...)
	for name, c := range map[string]*ttrpc.Client{"direct": direct, "relayed": relayed} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				streamBoth(t, c)
				streamDown(t, c)
				streamUp(t, c)
			}
			// The connection is good for calls still.
			if r := call(c, 0, echoService, "Echo", wrapperspb.Bytes([]byte("x")), new(wrapperspb.BytesValue)); r.err != "" {
				t.Error(r.err)
			}
		})
	}
}

func stream(t *testing.T, c *ttrpc.Client, method string, up, down bool, req any) ttrpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(context.Background(), &ttrpc.StreamDesc{StreamingClient: up, StreamingServer: down}, echoService, method, req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func streamBoth(t *testing.T, c *ttrpc.Client) {
	s := stream(t, c, "Both", true, true, nil)
	for _, size := range []int{0, 1, 5000, 1 << 20} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := s.SendMsg(wrapperspb.Bytes(want)); err != nil {
			t.Fatal(err)
		}
		var got wrapperspb.BytesValue
		if err := s.RecvMsg(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Value, want) {
			t.Fatalf("%d bytes came back as %d", size, len(got.Value))
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
		t.Errorf("stream ended with %v, want EOF", err)
	}
}

func streamDown(t *testing.T, c *ttrpc.Client) {
	s := stream(t, c, "Down", false, true, wrapperspb.Int64(100))
	for want := range int64(100) {
		var got wrapperspb.Int64Value
		if err := s.RecvMsg(&got); err != nil || got.Value != want {
			t.Fatalf("message %d: %d, %v", want, got.Value, err)
		}
	}
	if err := s.RecvMsg(new(wrapperspb.Int64Value)); !errors.Is(err, io.EOF) {
		t.Errorf("stream ended with %v, want EOF", err)
	}
	s = stream(t, c, "Down", false, true, wrapperspb.Int64(0))
	if err := s.RecvMsg(new(wrapperspb.Int64Value)); status.Code(err) != codes.OutOfRange {
		t.Errorf("stream failed with %v, want OutOfRange", err)
	}
}

func streamUp(t *testing.T, c *ttrpc.Client) {
	s := stream(t, c, "Up", true, false, nil)
	for range 50 {
		if err := s.SendMsg(wrapperspb.Bytes(make([]byte, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	var got wrapperspb.Int64Value
	if err := s.RecvMsg(&got); err != nil || got.Value != 50000 {
		t.Errorf("%d bytes arrived, %v, want 50000", got.Value, err)
	}
}

func TestManyCallsAtOnce(t *testing.T) {
	for _, callers := range []int{64, 1000} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			provider, rec := recorder()
			relayAddr, _ := relay(t, server(t), provider, propagators("tracecontext"))
			c := client(t, relayAddr)
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() { echo(t, c, i) })
			}
			wg.Wait()
			seen := map[string]bool{}
			for _, s := range ended(t, rec, callers) {
				seen[s.SpanContext().SpanID().String()] = true
			}
			if len(seen) != callers {
				t.Errorf("%d different spans of %d calls", len(seen), callers)
			}
		})
	}
}

// echo calls with a message that no other call has.
func echo(t *testing.T, c *ttrpc.Client, i int) {
	want := bytes.Repeat(fmt.Appendf(nil, "%d,", i), 1+i%3000)
	var got wrapperspb.BytesValue
	if err := c.Call(context.Background(), echoService, "Echo", wrapperspb.Bytes(want), &got); err != nil {
		t.Errorf("call %d: %v", i, err)
	} else if !bytes.Equal(got.Value, want) {
		t.Errorf("call %d got the answer of another", i)
	}
}

func TestManyConnections(t *testing.T) {
	provider, rec := recorder()
	relayAddr, stop := relay(t, server(t), provider, propagators("tracecontext"))
	var wg sync.WaitGroup
	for i := range 50 {
		c := client(t, relayAddr)
		wg.Go(func() {
			for j := range 10 {
				echo(t, c, 10*i+j)
			}
			c.Close()
		})
	}
	wg.Wait()
	stop()
	ended(t, rec, 500)
}
