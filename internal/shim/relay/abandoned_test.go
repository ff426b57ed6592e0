package relay

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestAbandoned: a relay whose start was killed goes and takes its files along, unless
// another start has found it meanwhile, or made another relay in its place.
func TestAbandoned(t *testing.T) {
	relay := func(t *testing.T) *Process {
		r := &Process{paths: state.PathsOf(t.TempDir(), "inner")}
		if err := r.paths.Create(); err != nil {
			t.Fatal(err)
		}
		var err error
		if r.listener, err = listenUnix(r.paths.Socket); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.listener.Close() })
		if r.bound, _, err = vmmdir.Identify(r.paths.Socket); err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := r.listener.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		return r
	}
	t.Run("nobody knows it", func(t *testing.T) {
		r := relay(t)
		if !r.Abandoned() {
			t.Error("it stays")
		}
		if left, _ := os.ReadDir(filepath.Dir(r.paths.Socket)); len(left) != 0 {
			t.Errorf("it leaves %v", left)
		}
	})
	t.Run("another start knows it", func(t *testing.T) {
		r := relay(t)
		release, err := r.paths.Acquire(0)
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan bool)
		go func() { gone <- r.Abandoned() }()
		if !state.Answers(r.paths.Socket) {
			t.Error("it does not answer")
		}
		shimtest.Eventually(t, "the start is accepted", func() bool { return r.listener.accepted.Load() > 0 })
		release()
		if <-gone {
			t.Error("it goes")
		}
		if !state.Answers(r.paths.Socket) {
			t.Error("it has gone")
		}
	})
	t.Run("another relay is in its place", func(t *testing.T) {
		r := relay(t)
		if err := unix.Unlink(r.paths.Socket); err != nil {
			t.Fatal(err)
		}
		next, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.paths.Socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if !r.Abandoned() {
			t.Error("it stays")
		}
		if !state.Answers(r.paths.Socket) {
			t.Error("it has removed the socket of another relay")
		}
	})
}
