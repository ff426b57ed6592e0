package host

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

// acceptPause is how long AcceptAll waits after a failure: less than others wait for an
// answer before they take the process for one that hangs.
const acceptPause = 10 * time.Millisecond

// AcceptAll hands each connection that accept returns to take, until the listener is closed
// or its deadline has passed; then it returns nil. After any other failure it tells report,
// and tries again after a pause: want of descriptors or memory must not end the process.
// Once ctx is done, it returns ctx's error instead.
func AcceptAll[C any](ctx context.Context, accept func() (C, error), take func(C), report func(error)) error {
	for {
		conn, err := accept()
		switch {
		case err == nil:
			take(conn)
			continue
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		report(err)
		if !sleep.For(ctx, acceptPause) {
			return ctx.Err()
		}
	}
}

const (
	// maxLate bounds the clients that are accepted after the deadline of a listener.
	maxLate = 128
	// lateTime is the time for each of them.
	lateTime = 100 * time.Millisecond
)

// Lingering returns l.AcceptUnix for a listener whose deadline is its end. Clients that wait
// there when the deadline has passed are still accepted: it may have passed while the process
// had no processor.
func Lingering(l *net.UnixListener) func() (*net.UnixConn, error) {
	late := 0
	return func() (*net.UnixConn, error) {
		conn, err := l.AcceptUnix()
		for ; errors.Is(err, os.ErrDeadlineExceeded) && late < maxLate && Ready(l); late++ {
			_ = l.SetDeadline(time.Now().Add(lateTime))
			conn, err = l.AcceptUnix()
		}
		return conn, err
	}
}
