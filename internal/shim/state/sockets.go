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

// Answers reports whether somebody listens on the Unix socket. Who does not come to accept
// does so, too, however many wait.
func Answers(socket string) bool {
	conn, err := Dial(socket)
	if err != nil {
		return errors.Is(err, unix.EAGAIN) || errors.Is(err, context.DeadlineExceeded)
	}
	conn.Close()
	return true
}

// Dial connects to a Unix socket.
func Dial(path string) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	return host.DialUnix(ctx, "unix", path)
}
