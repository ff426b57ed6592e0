package interpose

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// pass passes on what comes until there is no more.
func (c *connection) pass(r *reader, from, to *net.UnixConn) {
	for {
		data, passed, err := r.next()
		if from == c.client && c.roused(err) {
			continue
		}
		if err != nil {
			ended(err, from, to)
			return
		}
		if err := write(to, data, passed); err != nil {
			unheard(err, from, to)
			return
		}
	}
}

// ended tells to that from says no more, and, if from is gone altogether, that it
// does not listen either: then both directions are over without waiting for to.
func ended(err error, from, to *net.UnixConn) {
	switch {
	case hungUp(from):
		_ = to.CloseWrite()
		_ = to.CloseRead()
	case errors.Is(err, io.EOF):
		_ = to.CloseWrite()
	default:
		from.Close()
		to.Close()
	}
}

// unheard has from's writes fail, since to does not listen any more. What to has
// said still reaches from.
func unheard(err error, from, to *net.UnixConn) {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		_ = from.CloseRead()
		// A writer that waits for room is not told by that alone (Linux).
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{from})
		return
	}
	from.Close()
	to.Close()
}

// hungUp tells whether the other end is closed for reading and writing.
func hungUp(conn *net.UnixConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, _ = uninterrupted(func() (int, error) { return unix.Poll(fds, 0) })
		gone = fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone || err != nil
}
