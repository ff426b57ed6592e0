// Package hosttest acts as other users of the host.
package hosttest

import (
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Nobody is a user who owns nothing.
const Nobody = 65534

// AsUser runs f on a thread whose sockets and file accesses are another user's. done is
// closed when f has returned. It takes root.
func AsUser(t testing.TB, uid int, f func()) (done <-chan struct{}) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("root is needed, to act as another user")
	}
	over, set := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(over)
		runtime.LockOSThread() // for good: the thread is not fit for anything else
		err := unix.Setfsuid(uid)
		if set <- err; err == nil {
			f()
		}
	}()
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	return over
}

// ListenAs opens a port of the loopback interface as another user, until the test ends.
func ListenAs(t testing.TB, uid int) (l net.Listener) {
	t.Helper()
	var err error
	<-AsUser(t, uid, func() { l, err = net.Listen("tcp", "127.0.0.1:0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}
