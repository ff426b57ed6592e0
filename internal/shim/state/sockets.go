package state

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// dialTimeout bounds a connect to a Unix socket: it is immediate unless the
// listener's queue is full.
const dialTimeout = time.Second

// Answers reports whether somebody listens on the Unix socket. A process that does not get
// round to accepting listens as well, however many connections wait.
func Answers(socket string) bool {
	err := host.ConnectUnix(socket)
	return err == nil || errors.Is(err, unix.EAGAIN)
}

// Dial connects to a Unix socket.
func Dial(path string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return host.DialUnix(ctx, "unix", path)
}
