package host

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// acceptPause is how long AcceptAll waits after a failure: less than others wait for an
// answer before they take the process for one that hangs.
const acceptPause = 10 * time.Millisecond

// AcceptAll hands each connection that accept returns to take, until the listener is
// closed or its deadline has passed; then it returns nil. After another failure, which for
// want of descriptors or memory must not end the process, it tells report and tries again
// after a pause. Once ctx is done, it returns ctx's error instead.
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
		select {
		case <-time.After(acceptPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
