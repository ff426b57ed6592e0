package vmshim

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"

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

	server, err := ttrpc.NewServer(ttrpc.WithServerHandshaker(ttrpc.UnixSocketRequireSameUser()))
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
