package vmshim

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// listenerFD is the listening socket that start hands to the daemon.
const listenerFD = 3

// serve is the daemon: it stands before the runc shim at inner until that ends,
// and ends the VM with it.
func serve(settings Settings, inner string) error {
	file := os.NewFile(listenerFD, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("take over the listening socket: %w", err)
	}
	file.Close()
	defer os.Remove(listener.Addr().String())

	conn, err := net.Dial("unix", inner)
	if err != nil {
		return fmt.Errorf("connect to the runc shim: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	client := ttrpc.NewClient(conn, ttrpc.WithOnClose(cancel))
	defer client.Close()

	service := newTasks(ctx, settings, task.NewTTRPCTaskClient(client))
	// Whatever containerd left undone; nothing if the sandbox was deleted.
	defer service.endTracing()
	defer func() { service.end(ctx) }()

	opts := []ttrpc.ServerOpt{ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser())}
	if settings.OneCall {
		opts = append(opts, ttrpc.WithUnaryServerInterceptor(oneCall()))
	}
	server, err := ttrpc.NewServer(opts...)
	if err != nil {
		return err
	}
	defer server.Close()
	task.RegisterTTRPCTaskService(server, service)
	go func() {
		if err := server.Serve(ctx, listener); !errors.Is(err, ttrpc.ErrServerClosed) {
			log.Printf("vmshim: serve: %v", err)
		}
	}()
	<-ctx.Done()
	return nil
}

// oneCall serves one call at a time, but for those that wait for a process's end.
func oneCall() ttrpc.UnaryServerInterceptor {
	var mu sync.Mutex
	return func(ctx context.Context, unmarshal ttrpc.Unmarshaler, info *ttrpc.UnaryServerInfo, method ttrpc.Method) (any, error) {
		if !strings.HasSuffix(info.FullMethod, "/Wait") {
			mu.Lock()
			defer mu.Unlock()
		}
		return method(ctx, unmarshal)
	}
}
