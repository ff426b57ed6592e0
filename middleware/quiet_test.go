package middleware_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/middleware"
)

func TestQuiet(t *testing.T) {
	const always, never = time.Nanosecond, time.Hour
	for name, tt := range map[string]struct {
		slow            time.Duration
		quiet           string
		service, method string
		req, answer     proto.Message
		spans           int
	}{
		"fast":               {never, "State", taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse), 0},
		"slow":               {always, "State", taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse), 1},
		"slow is of no note": {0, "State", taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse), 0},
		"failed":             {never, "State", taskService, "State", &task.StateRequest{ID: "missing"}, new(task.StateResponse), 1},
		"by its full name":   {never, taskService + "/State", taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse), 0},
		"not another's":      {never, "x.Task/State", taskService, "State", &task.StateRequest{ID: "box"}, new(task.StateResponse), 1},
		"not another method": {never, "State", taskService, "Create", &task.CreateTaskRequest{ID: "box"}, new(task.CreateTaskResponse), 1},
		"wait is never slow": {always, "Wait", taskService, "Wait", &task.WaitRequest{ID: "box"}, new(task.WaitResponse), 0},
		"wait that fails":    {never, "Wait", taskService, "Wait", &task.WaitRequest{ID: "missing"}, new(task.WaitResponse), 1},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			addr, stop := relay(t, server(t), provider, middleware.WithQuiet(tt.slow, tt.quiet))
			c := client(t, addr)
			c.Call(context.Background(), tt.service, tt.method, tt.req, tt.answer)
			c.Close()
			stop()
			ended(t, rec, tt.spans)
		})
	}
}

// What a quiet call causes is quiet too: its context is marked as not sampled,
// and remains the caller's trace.
func TestQuietContext(t *testing.T) {
	provider, _ := recorder()
	addr, _ := relay(t, server(t), provider, propagators("tracecontext", "b3"), middleware.WithQuiet(0, "Metadata"))
	md := carrying(callerSpan)
	md.Set("b3", callerTrace+"-"+callerID+"-d") // "debug": to be sampled by all means
	seen := seenBy(t, client(t, addr), md)
	for _, form := range []string{"tracecontext", "b3"} {
		sc := trace.SpanContextFromContext(extract(form, seen))
		if sc.IsSampled() || sc.TraceID() != callerSpan.TraceID() || sc.SpanID() == callerSpan.SpanID() {
			t.Errorf("%s carries %v", form, sc)
		}
	}
}

func TestStreamsAreQuiet(t *testing.T) {
	provider, rec := recorder()
	addr, stop := relay(t, server(t), provider, middleware.WithQuiet(time.Nanosecond))
	c := client(t, addr)
	streamBoth(t, c)
	streamUp(t, c)
	s := stream(t, c, "Down", false, true, wrapperspb.Int64(1))
	for err := error(nil); !errors.Is(err, io.EOF); {
		err = s.RecvMsg(new(wrapperspb.Int64Value))
	}
	s = stream(t, c, "Down", false, true, wrapperspb.Int64(0))
	if err := s.RecvMsg(new(wrapperspb.Int64Value)); err == nil {
		t.Error("the stream did not fail")
	}
	c.Close()
	stop()
	if got := ended(t, rec, 1)[0]; attrs(got)["error.type"] != "OUT_OF_RANGE" {
		t.Errorf("span has %v", attrs(got))
	}
}

// A quiet call that nobody answers has failed when it had a timeout; a connection
// that ends has other reasons.
func TestQuietUnanswered(t *testing.T) {
	for name, tt := range map[string]struct {
		method  string
		timeout time.Duration
		spans   int
	}{
		"timeout":         {"State", time.Nanosecond, 1},
		"connection ends": {"State", time.Hour, 0},
		"no timeout":      {"State", 0, 0},
		"wait":            {"Wait", time.Nanosecond, 0},
	} {
		t.Run(name, func(t *testing.T) {
			provider, rec := recorder()
			w := connect(t, provider, middleware.WithQuiet(0, "State", "Wait"))
			in := request(1, &ttrpc.Request{Service: taskService, Method: tt.method, TimeoutNano: int64(tt.timeout)})
			exchange(t, w.client, w.server, in, func() int { return 1 << 30 })
			w.server.Close()
			w.wait(t)
			ended(t, rec, tt.spans)
		})
	}
}

func TestSampledOutIsNotRecorded(t *testing.T) {
	provider, rec := recorder(sdktrace.WithSampler(sdktrace.NeverSample()))
	addr, stop := relay(t, server(t), provider, propagators("tracecontext"))
	c := client(t, addr)
	if sc := trace.SpanContextFromContext(extract("tracecontext", seenBy(t, c, nil))); !sc.IsValid() || sc.IsSampled() {
		t.Errorf("the server sees %v, want a context that is not sampled", sc)
	}
	if err := c.Call(context.Background(), taskService, "Dance", new(emptypb.Empty), new(emptypb.Empty)); err == nil {
		t.Error("the call did not fail")
	}
	c.Close()
	stop()
	ended(t, rec, 0)
}
