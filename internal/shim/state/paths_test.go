package state

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

func TestRelayPathsFitASocketAddress(t *testing.T) {
	p := PathsOf("/run/shimtrace", "/run/containerd/s/"+string(make([]byte, 64)))
	if len(p.Socket) > 106 {
		t.Errorf("%d bytes: %s", len(p.Socket), p.Socket)
	}
	if q := PathsOf("/run/shimtrace", "/run/containerd/s/other"); q == p {
		t.Error("two inner sockets have the same relay")
	}
}

func TestLockExcludesAlsoAcrossRemoval(t *testing.T) {
	p := PathsOf(t.TempDir(), "/inner")
	if err := p.Create(); err != nil {
		t.Fatal(err)
	}
	var held, entered atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				release, err := p.Acquire(10 * time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				if held.Add(1) != 1 {
					t.Error("held twice")
				}
				held.Add(-1)
				if entered.Add(1)%3 == 0 {
					p.Remove() // the lock too: the last that its holder does
				}
				release()
			}
		})
	}
	wg.Wait()
}

func TestLockDoesNotWaitForever(t *testing.T) {
	p := PathsOf(t.TempDir(), "/inner")
	if err := p.Create(); err != nil {
		t.Fatal(err)
	}
	release, err := p.Acquire(0)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := p.Acquire(20 * time.Millisecond); !errors.Is(err, host.ErrLocked) {
		t.Errorf("second holder: %v", err)
	}
}

// TestStateDirectoryOfAnotherUser is not used: whoever it belongs to could put a socket
// in the place of the relay's.
func TestStateDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("a directory of another user needs root")
	}
	dir := t.TempDir()
	if err := PathsOf(dir, "/run/x.sock").Create(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := PathsOf(dir, "/run/x.sock").Create(); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("it is used: %v", err)
	}
	if _, err := control.List(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("its sockets are asked: %v", err)
	}
}
