package shim

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/shim/control"
)

func TestRelayPathsFitASocketAddress(t *testing.T) {
	p := relayPaths("/run/shimtrace", "/run/containerd/s/"+string(make([]byte, 64)))
	if len(p.socket) > 106 {
		t.Errorf("%d bytes: %s", len(p.socket), p.socket)
	}
	if q := relayPaths("/run/shimtrace", "/run/containerd/s/other"); q == p {
		t.Error("two inner sockets have the same relay")
	}
}

func TestLockExcludesAlsoAcrossRemoval(t *testing.T) {
	p := relayPaths(t.TempDir(), "/inner")
	if err := p.create(); err != nil {
		t.Fatal(err)
	}
	var held, entered atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				release, err := p.acquire(10 * time.Second)
				if err != nil {
					t.Error(err)
					return
				}
				if held.Add(1) != 1 {
					t.Error("held twice")
				}
				held.Add(-1)
				if entered.Add(1)%3 == 0 {
					p.remove() // the lock too: the last that its holder does
				}
				release()
			}
		})
	}
	wg.Wait()
}

func TestLockDoesNotWaitForever(t *testing.T) {
	p := relayPaths(t.TempDir(), "/inner")
	if err := p.create(); err != nil {
		t.Fatal(err)
	}
	release, err := p.acquire(0)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := p.acquire(20 * time.Millisecond); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("second holder: %v", err)
	}
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.sock")
	first, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if l, err := listenUnix(path); err == nil {
		l.Close()
		t.Error("took the place of a living listener")
	}
	first.Close()
	if answers(path) {
		t.Error("closed listener answers")
	}
	second, err := listenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	pid, err := listenerPID(path)
	if err != nil || pid != os.Getpid() {
		t.Errorf("listener's pid %d, %v; want %d", pid, err, os.Getpid())
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
	if err := relayPaths(dir, "/run/x.sock").create(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if err := relayPaths(dir, "/run/x.sock").create(); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("it is used: %v", err)
	}
	if _, err := control.List(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("its sockets are asked: %v", err)
	}
}
