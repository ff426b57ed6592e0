// Command echo is a shim for tests whose calls and streams echo what they are given. It
// has no containers: it answers each call of the task service with nothing.
// containerd-shim-echo-v2 is the name to run it by.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch args[len(args)-1] {
	case "start":
		return start(args)
	case "serve":
		return serve(args[len(args)-2])
	}
	return nil // delete: nothing is left
}

// start leaves a process behind that serves, and prints its address.
func start(args []string) error {
	id := args[slices.Index(args, "-id")+1]
	bundle, err := os.Getwd()
	if err != nil {
		return err
	}
	sock := bundle + "/echo.sock"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-id", id, sock, "serve")
	cmd.Args[0] = args[0]
	cmd.ExtraFiles = []*os.File{f}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Print("unix://" + sock)
	return nil
}

func serve(sock string) error {
	signal.Ignore(syscall.SIGPIPE)
	defer os.Remove(sock)
	l, err := net.FileListener(os.NewFile(3, sock))
	if err != nil {
		return err
	}
	server, err := ttrpc.NewServer()
	if err != nil {
		return err
	}
	for _, service := range []string{"containerd.task.v2.Task", "containerd.task.v3.Task"} {
		server.Register(service, taskMethods(server))
	}
	server.RegisterService("shimtrace.test.Echo", &ttrpc.ServiceDesc{
		Methods: map[string]ttrpc.Method{"Echo": echo, "Slow": slow, "Fail": fail, "Hang": hang},
		Streams: map[string]ttrpc.Stream{"Stream": {Handler: stream, StreamingClient: true, StreamingServer: true}},
	})
	if err := server.Serve(context.Background(), l); !errors.Is(err, ttrpc.ErrServerClosed) {
		return err
	}
	return nil
}

func taskMethods(server *ttrpc.Server) map[string]ttrpc.Method {
	methods := map[string]ttrpc.Method{}
	for _, name := range []string{"State", "Create", "Start", "Delete", "Pids", "Pause", "Resume", "Kill", "Exec", "ResizePty", "CloseIO", "Update", "Wait", "Stats", "Connect"} {
		methods[name] = func(_ context.Context, unmarshal func(any) error) (any, error) {
			return new(emptypb.Empty), unmarshal(new(emptypb.Empty))
		}
	}
	methods["Shutdown"] = func(_ context.Context, unmarshal func(any) error) (any, error) {
		go func() {
			time.Sleep(100 * time.Millisecond) // the answer goes first
			server.Close()
		}()
		return new(emptypb.Empty), unmarshal(new(emptypb.Empty))
	}
	return methods
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
