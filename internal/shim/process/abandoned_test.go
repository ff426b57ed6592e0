package process

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// abandoned serves task v2 alone, as shims for containerd 1.7 do, until Shutdown.
func abandoned(t *testing.T, deleteFails int) (sock string, calls func() []string) {
	t.Helper()
	sock = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var seen []string
	method := func(name string, answer func() error) ttrpc.Method {
		return func(_ context.Context, unmarshal func(any) error) (any, error) {
			var id wrapperspb.StringValue
			if err := unmarshal(&id); err != nil {
				return nil, err
			}
			mu.Lock()
			seen = append(seen, name+" "+id.Value)
			mu.Unlock()
			return new(emptypb.Empty), answer()
		}
	}
	server.Register("containerd.task.v2.Task", map[string]ttrpc.Method{
		"Delete": method("Delete", func() error {
			if deleteFails--; deleteFails >= 0 {
				return errors.New("cannot delete a running process")
			}
			return status.Error(codes.NotFound, "deleted already")
		}),
		"Shutdown": method("Shutdown", func() error { go server.Close(); return nil }),
	})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(t.Context(), l) }()
	t.Cleanup(func() { server.Close(); <-served })
	return sock, func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(seen) }
}

func TestAbandonedIsEnded(t *testing.T) {
	sock, calls := abandoned(t, 2)
	relay := filepath.Join(t.TempDir(), "relay.sock")
	if err := endAbandoned(&state.State{InnerSock: sock, InnerPID: os.Getpid(), RelaySock: relay}, "c1", time.Now().Add(testkit.Patience)); err != nil {
		t.Fatal(err)
	}
	if got, want := calls(), []string{"Delete c1", "Delete c1", "Delete c1", "Shutdown c1"}; !slices.Equal(got, want) {
		t.Errorf("calls %q, want %q", got, want)
	}
	if _, err := os.Lstat(sock); !os.IsNotExist(err) {
		t.Errorf("the abandoned shim's socket is left: %v", err)
	}
	if err := endAbandoned(&state.State{InnerSock: sock, InnerPID: os.Getpid()}, "c1", time.Now().Add(testkit.Patience)); err != nil {
		t.Errorf("an abandoned shim that is gone: %v", err)
	}
}

func TestAnotherShimIsLeftAlone(t *testing.T) {
	sock, calls := abandoned(t, 0)
	if err := endAbandoned(&state.State{InnerSock: sock, InnerPID: os.Getpid() + 1}, "c1", time.Now().Add(testkit.Patience)); err != nil {
		t.Error(err)
	}
	if got := calls(); len(got) > 0 {
		t.Errorf("a shim that took over the address was called: %q", got)
	}
}
