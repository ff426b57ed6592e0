package listen

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// arrival is a connection that was handed on.
type arrival struct {
	conn Conn
	from Origin
}

// acceptVMs accepts in the stand-in's place until the test ends.
func acceptVMs(t *testing.T, stand transport, warn func(error)) (arrived chan arrival) {
	t.Helper()
	arrived = make(chan arrival, 256)
	ctx, stop := context.WithCancel(context.Background())
	var accepting sync.WaitGroup
	accepting.Go(func() {
		acceptOver(ctx, stand, warn, func(conn Conn, from Origin) { arrived <- arrival{conn, from} })
	})
	t.Cleanup(func() {
		stop()
		accepting.Wait()
		for len(arrived) > 0 {
			(<-arrived).conn.Close()
		}
	})
	return arrived
}

func standIn(t *testing.T) (transport, string) {
	name := fmt.Sprintf("shimtrace-test-%d-%s", os.Getpid(), t.Name())
	return abstractTransport(name), name
}

func await[T any](t *testing.T, arrived chan T) (a T) {
	t.Helper()
	select {
	case a = <-arrived:
	case <-time.After(patience):
		t.Fatalf("no %T arrives", a)
	}
	return a
}

// carries checks that the VM's bytes arrive from the first one on.
func (a arrival) carries(t *testing.T, vm *net.UnixConn, text string) {
	t.Helper()
	if _, err := vm.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	_ = a.conn.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, len(text))
	if _, err := io.ReadFull(a.conn, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, not %q", b, err, text)
	}
}

// TestVSOCKAnyVM: without a guard, one process accepts the connections of all VMs.
func TestVSOCKAnyVM(t *testing.T) {
	stand, name := standIn(t)
	arrived := acceptVMs(t, stand, func(err error) { t.Error(err) })
	for _, cid := range []uint32{firstGuest, 77, 4000000000} {
		vm := mustDialVM(t, name, cid)
		a := await(t, arrived)
		if want := (Origin{CID: cid}); a.from != want {
			t.Errorf("comes from %+v, not %+v", a.from, want)
		}
		a.carries(t, vm, "spans")
		a.conn.Close()
	}
}

// TestVSOCKHost: connections from the host itself are not of a VM.
func TestVSOCKHost(t *testing.T) {
	stand, name := standIn(t)
	arrived := acceptVMs(t, stand, func(err error) { t.Error(err) })
	for cid := range uint32(firstGuest) {
		vm := mustDialVM(t, name, cid)
		_ = vm.SetReadDeadline(time.Now().Add(patience))
		if _, err := vm.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("CID %d: read: %v, not closed", cid, err)
		}
	}
	if len(arrived) != 0 {
		t.Error("a connection of the host was kept")
	}
}

// TestVSOCKPortTaken: another program has the port, and then ends.
func TestVSOCKPortTaken(t *testing.T) {
	stand, name := standIn(t)
	foreign, err := stand.listen()
	if err != nil {
		t.Fatal(err)
	}
	warned := make(chan error, 100)
	arrived := acceptVMs(t, stand, func(err error) {
		if err != nil {
			warned <- err
		}
	})
	select {
	case err := <-warned:
		if !strings.Contains(err.Error(), "another program") {
			t.Errorf("warns %q", err)
		}
	case <-time.After(patience):
		t.Fatal("nobody is warned")
	}
	foreign.Close()
	vm := mustDialVM(t, name, 60)
	a := await(t, arrived)
	defer a.conn.Close()
	a.carries(t, vm, "at last")
	if len(warned) > 0 {
		t.Errorf("warned again: %v", <-warned)
	}
}

// TestVSOCKHere: the real address family can be listened at, or says why not. Nothing
// connects.
func TestVSOCKHere(t *testing.T) {
	fd, err := OpenVSOCK()
	if err != nil {
		if !strings.Contains(err.Error(), "VSOCK") {
			t.Errorf("unhelpful error %v", err)
		}
		t.Skip("no VSOCK here: ", err)
	}
	defer unix.Close(fd)
	if _, err := OpenVSOCK(); err == nil || !strings.Contains(err.Error(), "10240") {
		t.Errorf("the port can be had twice: %v", err)
	}
}
