package forwarder_test

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

const patience = 20 * time.Second

// connect gives the Forwarder a connection, and returns the agent's end.
func connect(t *testing.T, r *forwarder.Forwarder, from listen.Origin) *net.UnixConn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
	}
	r.Take(ends[0], from)
	t.Cleanup(func() { ends[1].Close() })
	return ends[1]
}

// send sends bytes, and fails if nobody reads them.
func send(t *testing.T, agent *net.UnixConn, data []byte) {
	t.Helper()
	_ = agent.SetWriteDeadline(time.Now().Add(patience))
	if _, err := agent.Write(data); err != nil {
		t.Fatal("the connection is not read: ", err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that: ", what)
		}
	}
}
