package process

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

const (
	// leaveTime is how long a shim may take to end when it was told that it may.
	leaveTime = 1500 * time.Millisecond
	// abandonedPause is between two attempts.
	abandonedPause = 20 * time.Millisecond
)

// taskServices are the services that shims have tasks in, of which a shim may know
// only one.
var taskServices = []string{"containerd.task.v3.Task", "containerd.task.v2.Task"}

// endAbandoned ends the inner shim of a relay that died: containerd takes the shim for dead
// as well, cleans up with the delete command alone, and will never tell the shim that its
// container is gone or that it may go. A shim that has other containers stays until their
// deletes come. It does nothing if the shim of st is gone.
func endAbandoned(st *state.State, id string, deadline time.Time) error {
	conn, err := state.Dial(st.InnerSock)
	if err != nil {
		return nil
	}
	if cred, err := host.Peer(conn); err != nil || int(cred.Pid) != st.InnerPID {
		conn.Close()
		return nil // another shim has that address by now
	}
	gone := make(chan struct{})
	client := ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { close(gone) }))
	defer client.Close()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if err := callTask(ctx, client, "Delete", id); err != nil {
		return fmt.Errorf("end the inner shim of a dead relay: %w", err)
	}
	if err := callTask(ctx, client, "Shutdown", id); err != nil && !errors.Is(err, ttrpc.ErrClosed) {
		return fmt.Errorf("end the inner shim of a dead relay: %w", err)
	}
	select {
	case <-gone:
		for state.Answers(st.InnerSock) && ctx.Err() == nil {
			time.Sleep(abandonedPause) // its listener goes with the process
		}
		st.RemoveLeakedSocket()
	case <-time.After(leaveTime): // it has other containers
	case <-ctx.Done():
	}
	return nil
}

// callTask calls a method until it succeeds, since the shim may not have noticed
// yet that the container's process ended. A container that the shim does not know
// needs no call.
func callTask(ctx context.Context, client *ttrpc.Client, method, id string) error {
	for {
		var err error
		for _, service := range taskServices {
			// On the wire, a request whose first field is the id.
			err = client.Call(ctx, service, method, wrapperspb.String(id), new(emptypb.Empty))
			if status.Code(err) != codes.Unimplemented {
				break
			}
		}
		switch {
		case err == nil, status.Code(err) == codes.NotFound:
			return nil
		case errors.Is(err, ttrpc.ErrClosed), ctx.Err() != nil:
			return fmt.Errorf("%s: %w", method, err)
		}
		if !sleep.For(ctx, abandonedPause) {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
}
