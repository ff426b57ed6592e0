package control

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// connectTime bounds a connect to a relay.
const connectTime = time.Second

// Listens reports whether somebody listens at a relay's socket. A killed relay leaves its
// files until its containers are deleted. If that cannot be told, the relay is taken to be
// alive.
func Listens(ctx context.Context, socket string) bool {
	d := net.Dialer{Timeout: connectTime}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err == nil {
		conn.Close()
	}
	return !NobodyListens(err)
}

// NobodyListens reports from a connect's error whether the relay has ended.
func NobodyListens(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED)
}
