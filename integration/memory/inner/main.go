// Command inner is a shim for tests of what a relay takes of memory: it answers every
// call of the task service with nothing, and posts, when it is told to, what a Kata
// runtime has posted. containerd-shim-kata-v2 is the name to run it by.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/integration/memory/post"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "inner:", err)
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
	sock, err := os.Getwd() // the bundle, whose path is short
	if err != nil {
		return err
	}
	sock += "/inner.sock"
	l, err := net.Listen("unix", sock)
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		return err
	}
	cmd := exec.Command(args[0], "-id", id, sock, "serve")
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
	nothing := func(_ context.Context, unmarshal func(any) error) (any, error) {
		return new(emptypb.Empty), unmarshal(new(emptypb.Empty))
	}
	methods := map[string]ttrpc.Method{}
	for _, name := range []string{"State", "Create", "Start", "Delete", "Pids", "Pause", "Resume", "Kill", "Exec", "ResizePty", "CloseIO", "Update", "Wait", "Stats", "Connect"} {
		methods[name] = nothing
	}
	methods["Shutdown"] = func(_ context.Context, unmarshal func(any) error) (any, error) {
		go server.Close()
		return new(emptypb.Empty), unmarshal(new(emptypb.Empty))
	}
	server.Register("containerd.task.v2.Task", methods)
	server.Register(post.Service, map[string]ttrpc.Method{post.Method: func(_ context.Context, unmarshal func(any) error) (any, error) {
		var body wrapperspb.BytesValue
		if err := unmarshal(&body); err != nil {
			return nil, err
		}
		return new(emptypb.Empty), toJaeger(body.Value)
	}})
	_ = server.Serve(context.Background(), l)
	return nil
}

func toJaeger(body []byte) error {
	resp, err := http.Post(os.Getenv(post.URLEnv), "application/x-thrift", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
