package interpose

import (
	"errors"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// pass passes messages on until the end.
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

// ended tells to that from sends no more. If from is fully closed, it does not read
// either, so both directions end without waiting for to.
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

// unheard makes from's writes fail because to no longer reads. What to has sent still
// reaches from.
func unheard(err error, from, to *net.UnixConn) {
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		_ = from.CloseRead()
		// On Linux, that alone does not wake a writer that waits for room.
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{from})
		return
	}
	from.Close()
	to.Close()
}

// hungUp reports whether the other end is closed for reading and writing.
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
