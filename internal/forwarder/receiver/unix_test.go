package receiver

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host/hosttest"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestUnixSocket: only admitted users are listened to, whoever can reach the socket.
func TestUnixSocket(t *testing.T) {
	dir := testkit.ShortDir(t)
	check(t, os.Chmod(dir, 0o755))
	dir = filepath.Join(dir, "run")
	check(t, os.Mkdir(dir, 0o755))
	const friend = hosttest.Nobody - 1
	var strangers atomic.Uint64
	var sink taken
	closed, open := filepath.Join(dir, "closed"), filepath.Join(dir, "open")
	r := New(sink.take, Options{})
	for path, users := range map[string][]uint32{closed: nil, open: {friend}} {
		l, err := ListenUnix(path, users, &strangers)
		check(t, err)
		serve(t, r, l)
	}
	for _, tt := range []struct {
		uid  int
		path string
		ok   bool
	}{{0, closed, true}, {0, open, true}, {friend, open, true}, {friend, closed, false}, {hosttest.Nobody, open, false}} {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
			return dialAs(tt.uid, tt.path)
		}}}
		answer, err := client.Post("http://unix"+httpPath, typeProtobuf, bytes.NewReader(body(t, spansOf("a", some(1)...))))
		if err == nil {
			answer.Body.Close()
		}
		if (err == nil) != tt.ok {
			t.Errorf("user %d at %s: %v", tt.uid, filepath.Base(tt.path), err)
		}
	}
	if n := strangers.Load(); n != 1 {
		t.Errorf("%d strangers", n)
	}
	if _, err := ListenUnix(open, nil, &strangers); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Error(err)
	}
}

// dialAs connects as another user, of whom the kernel then tells the listener.
func dialAs(uid int, path string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is that user's
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}

// TestUnixPaths: nothing but an old socket is replaced, and only where nobody else can
// put one.
func TestUnixPaths(t *testing.T) {
	dir := t.TempDir()
	file, old := filepath.Join(dir, "file"), filepath.Join(dir, "old")
	check(t, os.WriteFile(file, []byte("precious"), 0o600))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: old})
	check(t, err)
	l.SetUnlinkOnClose(false)
	l.Close()
	var strangers atomic.Uint64
	if _, err := ListenUnix(file, nil, &strangers); err == nil || !strings.Contains(err.Error(), "another kind") {
		t.Error(err)
	}
	again, err := ListenUnix(old, nil, &strangers)
	check(t, err)
	check(t, again.Close())
	if _, err := os.Lstat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket stays:", err)
	}
	shared := filepath.Join(dir, "shared")
	check(t, os.Mkdir(shared, 0o700))
	check(t, os.Chmod(shared, 0o777))
	if _, err := ListenUnix(filepath.Join(shared, "s"), nil, &strangers); err == nil || !strings.Contains(err.Error(), "can be written to by others") {
		t.Error(err)
	}
}
