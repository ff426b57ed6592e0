package listen

import (
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/shimtrace/shimtrace/internal/host"
)

// left returns a copy of a socket, as another process would have it.
func left(t *testing.T, s Socket) Socket {
	t.Helper()
	f, err := s.Listener.File()
	if err != nil {
		t.Fatal(err)
	}
	if s.Listener, err = host.UnixListener(f); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHybridGoesOn: a Hybrid that is left a socket accepts earlier connections, makes no
// new socket, and removes it at its end.
func TestHybridGoesOn(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	mkdir(t, filepath.Dir(path))
	var mu sync.Mutex
	var sockets []Socket
	opts.Listening = func(s Socket) {
		mu.Lock()
		defer mu.Unlock()
		sockets = append(sockets, s)
	}
	arrived, _ := hybrid(t, opts)
	vmm(t, path)
	await(t, arrived)
	mu.Lock()
	was := sockets[0]
	mu.Unlock()
	kept := left(t, was)
	was.Listener.Close() // the process has died
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	waiting, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}) // nobody accepts yet
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	opts.Sockets = []Socket{kept}
	next, stop := hybrid(t, opts)
	await(t, next).carries(t, waiting, "spans")
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		t.Errorf("the socket is another one: %v", err)
	}
	stop()
	if names := entries(t, filepath.Dir(path)); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// TestHybridLeftAnothers: a socket that is not the sandbox's is closed.
func TestHybridLeftAnothers(t *testing.T) {
	opts, path := at(t, "vm/{sandbox}/clh.sock")
	elsewhere := filepath.Join(t.TempDir(), "x.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: elsewhere, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	var gone string
	opts.Sockets, opts.Left = []Socket{{Path: elsewhere, Listener: l}}, func(path string) { gone = path }
	h, err := NewHybrid("pod", opts, func(c Conn, _ Origin) { c.Close() })
	if err != nil {
		t.Fatal(err)
	}
	if gone != elsewhere || h.places[0].socket != nil {
		t.Errorf("it listens at %s too, left %q", path, gone)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the socket is open")
	}
}
