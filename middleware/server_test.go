package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The services of the real server that the tests call.
const (
	taskService = "containerd.task.v3.Task"
	echoService = "shimtrace.test.Echo"
)

// exitedAt is when every container of the test server has exited.
var exitedAt = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

// server starts a real ttrpc server and returns where it listens.
func server(t testing.TB, opts ...ttrpc.ServerOpt) (addr string) {
	t.Helper()
	s, err := ttrpc.NewServer(opts...)
	if err != nil {
		t.Fatal(err)
	}
	s.Register(taskService, taskMethods)
	s.RegisterService(echoService, &ttrpc.ServiceDesc{Methods: echoMethods, Streams: echoStreams})
	l := listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; !errors.Is(err, ttrpc.ErrServerClosed) {
			t.Errorf("server: %v", err)
		}
	})
	return l.Addr().String()
}

// unary makes a ttrpc method of a plain function.
func unary[Req any, PReq interface {
	*Req
	proto.Message
}, Resp proto.Message](f func(context.Context, PReq) (Resp, error)) ttrpc.Method {
	return func(ctx context.Context, unmarshal func(any) error) (any, error) {
		var req Req
		if err := unmarshal(PReq(&req)); err != nil {
			return nil, err
		}
		return f(ctx, PReq(&req))
	}
}

// taskMethods know the containers "box", and "missing", which they do not.
var taskMethods = map[string]ttrpc.Method{
	"Create": unary(func(_ context.Context, r *task.CreateTaskRequest) (*task.CreateTaskResponse, error) {
		return &task.CreateTaskResponse{Pid: 42}, found(r.ID)
	}),
	"State": unary(func(_ context.Context, r *task.StateRequest) (*task.StateResponse, error) {
		return &task.StateResponse{ID: r.ID, ExecID: r.ExecID, Bundle: "/run/bundle", Pid: 42, Stdout: "/run/stdout"}, found(r.ID)
	}),
	"Kill": unary(func(_ context.Context, r *task.KillRequest) (*emptypb.Empty, error) {
		return &emptypb.Empty{}, found(r.ID)
	}),
	"Wait": unary(func(_ context.Context, r *task.WaitRequest) (*task.WaitResponse, error) {
		return &task.WaitResponse{ExitStatus: 137, ExitedAt: timestamppb.New(exitedAt)}, found(r.ID)
	}),
	"Delete": unary(func(_ context.Context, r *task.DeleteRequest) (*task.DeleteResponse, error) {
		return &task.DeleteResponse{Pid: 42, ExitedAt: timestamppb.New(exitedAt)}, found(r.ID)
	}),
}

func found(id string) error {
	if id == "missing" {
		return status.Errorf(codes.NotFound, "container %q: not found", id)
	}
	return nil
}

var errPlain = map[string]error{
	"eof":       io.EOF,
	"notexist":  fmt.Errorf("plain"),
	"exist":     os.ErrExist,
	"canceled":  context.Canceled,
	"wrapped":   fmt.Errorf("while waiting: %w", context.DeadlineExceeded),
	"status":    fmt.Errorf("runtime: %w", status.Error(codes.FailedPrecondition, "not running")),
	"closed":    ttrpc.ErrClosed,
	"multiline": errors.New("failed to create\n\nCaused by:\n    0: no such file"),
}

var echoMethods = map[string]ttrpc.Method{
	"Echo": unary(func(_ context.Context, r *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
		return r, nil
	}),
	"Fail": unary(func(_ context.Context, r *wrapperspb.UInt32Value) (*emptypb.Empty, error) {
		return nil, status.Errorf(codes.Code(r.Value), "code %d", r.Value)
	}),
	"FailPlainly": unary(func(_ context.Context, r *wrapperspb.StringValue) (*emptypb.Empty, error) {
		return nil, errPlain[r.Value]
	}),
	"Hang": unary(func(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}),
	// Late answers when its caller has given up.
	"Late": unary(func(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
		<-ctx.Done()
		time.Sleep(200 * time.Millisecond)
		return &emptypb.Empty{}, nil
	}),
	// Metadata answers with the request's metadata in JSON.
	"Metadata": unary(func(ctx context.Context, _ *emptypb.Empty) (*wrapperspb.BytesValue, error) {
		md, _ := ttrpc.GetMetadata(ctx)
		b, err := json.Marshal(md)
		return wrapperspb.Bytes(b), err
	}),
	// Deadline answers whether there is one, and whether it is within an hour.
	"Deadline": unary(func(ctx context.Context, _ *emptypb.Empty) (*wrapperspb.StringValue, error) {
		dl, ok := ctx.Deadline()
		return wrapperspb.String(fmt.Sprint(ok, time.Until(dl) < time.Hour)), nil
	}),
}

var echoStreams = map[string]ttrpc.Stream{
	// Both sends back what it gets.
	"Both": {StreamingClient: true, StreamingServer: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
		for {
			var msg wrapperspb.BytesValue
			switch err := s.RecvMsg(&msg); {
			case errors.Is(err, io.EOF):
				return nil, nil
			case err != nil:
				return nil, err
			}
			if err := s.SendMsg(&msg); err != nil {
				return nil, err
			}
		}
	}},
	// Down sends as many messages as it is asked for, then fails if there are none.
	"Down": {StreamingServer: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
		var n wrapperspb.Int64Value
		if err := s.RecvMsg(&n); err != nil {
			return nil, err
		}
		for i := range n.Value {
			if err := s.SendMsg(wrapperspb.Int64(i)); err != nil {
				return nil, err
			}
		}
		if n.Value == 0 {
			return nil, status.Error(codes.OutOfRange, "nothing to send")
		}
		return nil, nil
	}},
	// Up answers with the number of bytes that it got.
	"Up": {StreamingClient: true, Handler: func(_ context.Context, s ttrpc.StreamServer) (any, error) {
		var sum int64
		for {
			var msg wrapperspb.BytesValue
			switch err := s.RecvMsg(&msg); {
			case errors.Is(err, io.EOF):
				return wrapperspb.Int64(sum), nil
			case err != nil:
				return nil, err
			}
			sum += int64(len(msg.Value))
		}
	}},
}
