// Package idleshim is a shim for tests that has no containers: it answers each call of
// the task service with nothing. Programs add services of their own.
package idleshim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Socket is the name, in the bundle, of the socket at which the shim serves.
const Socket = "inner.sock"

// Main is the program's main: it carries out the command in its arguments. The process
// that serves has register add to its services.
func Main(register func(*ttrpc.Server)) {
	if err := run(os.Args, register); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

func run(args []string, register func(*ttrpc.Server)) error {
	switch args[len(args)-1] {
	case "start":
		return start(args)
	case "serve":
		return serve(args[len(args)-2], register)
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
	sock := filepath.Join(bundle, Socket)
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

func serve(sock string, register func(*ttrpc.Server)) error {
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
	register(server)
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
