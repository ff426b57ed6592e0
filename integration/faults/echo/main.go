// Command echo is a shim for tests whose calls and streams echo what they are given. It
// has no containers (package idleshim). containerd-shim-echo-v2 is the name to run it by.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/idleshim"
)

func main() {
	idleshim.Main(func(server *ttrpc.Server) {
		server.RegisterService("shimtrace.test.Echo", &ttrpc.ServiceDesc{
			Methods: map[string]ttrpc.Method{"Echo": echo, "Slow": slow, "Fail": fail, "Hang": hang},
			Streams: map[string]ttrpc.Stream{"Stream": {Handler: stream, StreamingClient: true, StreamingServer: true}},
		})
	})
}

func echo(_ context.Context, unmarshal func(any) error) (any, error) {
	body := new(wrapperspb.BytesValue)
	return body, unmarshal(body)
}

// slow echoes after some time.
func slow(ctx context.Context, unmarshal func(any) error) (any, error) {
	time.Sleep(300 * time.Millisecond)
	return echo(ctx, unmarshal)
}

// fail quotes what it was given.
func fail(_ context.Context, unmarshal func(any) error) (any, error) {
	body := new(wrapperspb.BytesValue)
	if err := unmarshal(body); err != nil {
		return nil, err
	}
	return nil, status.Error(codes.FailedPrecondition, "told to fail: "+string(body.Value))
}

// hang answers when nobody waits any more.
func hang(ctx context.Context, unmarshal func(any) error) (any, error) {
	if err := unmarshal(new(wrapperspb.BytesValue)); err != nil {
		return nil, err
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// stream echoes each message.
func stream(_ context.Context, s ttrpc.StreamServer) (any, error) {
	for {
		body := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(body); errors.Is(err, io.EOF) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		if err := s.SendMsg(body); err != nil {
			return nil, err
		}
	}
}
