package state

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestNewShimKeepsItsSocket: shims of one sandbox start and end in a tight loop, leaving
// their sockets, which relays and deletes clear away all the time. A shim that is there
// always has its socket, and of one that is gone none stays.
func TestNewShimKeepsItsSocket(t *testing.T) {
	dir := t.TempDir()
	st := &State{Namespace: "default", Sandbox: "pod", InnerSock: filepath.Join(dir, "inner"), RelaySock: filepath.Join(dir, "relay")}
	over := make(chan struct{})
	var clearing sync.WaitGroup
	for range 2 {
		clearing.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					st.RemoveLeakedSocket()
				}
			}
		})
	}
	// Whether it is over is seen only after clearing has come to an end.
	defer clearing.Wait()
	defer sync.OnceFunc(func() { close(over) })()
	addr := &unix.SockaddrUnix{Name: st.InnerSock}
	const starts = 3000
	for n := range starts {
		// As starter.runInner runs a shim that does what containerd's do
		// (pkg/shim, NewSocket): remove what is left, bind, listen.
		release, ok := LockStart(StartLock(dir, st.Namespace, st.Sandbox), unix.LOCK_SH, 20*time.Second)
		if !ok {
			t.Fatal("a start waits for who clears away")
		}
		_ = os.Remove(st.InnerSock)
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(unix.Bind(fd, addr), unix.Listen(fd, 128))
		release()
		if err != nil {
			t.Fatalf("start %d: %v", n, err)
		}
		for range 3 {
			if !Answers(st.InnerSock) {
				t.Fatalf("start %d: the shim is there, its socket is not", n)
			}
		}
		unix.Close(fd) // and the file stays
	}
	// The last one's goes as well.
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(st.InnerSock); errors.Is(err, os.ErrNotExist) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the last socket is not cleared away")
		}
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "shims of one sandbox start and end 3000 times in a row while relays and deletes clear away their sockets",
		Pod:   "nothing; each shim has its socket as long as it is there",
		Lost:  "nothing",
	})
}

// TestFullQueueIsAlive: a relay that is stopped, with as many connections waiting as
// there is room for, is not taken for dead.
func TestFullQueueIsAlive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		conn, err := Dial(path)
		if err != nil {
			break
		}
		defer conn.Close()
		if n > 100 {
			t.Fatal("the queue is endless")
		}
	}
	if !Answers(path) {
		t.Error("it is taken for dead")
	}
}
