package guard

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// sendPacket sends a message with descriptors beside it, without waiting: EAGAIN if
// there is no room.
func sendPacket(fd int, m message, files ...int) error {
	m.Files = len(files)
	b, err := m.encode()
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for {
		err := unix.Sendmsg(fd, b, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// receivePacket receives a message without waiting: EAGAIN if there is none, io.EOF if
// there will be none. buf is for its bytes. The caller closes the descriptors; on error
// there are none.
func receivePacket(fd int, buf []byte) (m message, files []int, err error) {
	var oob [64]byte // room for maxFiles, and some more: the kernel closes what is beyond
	var n, oobn, flags int
	for {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR && !host.LastWords(err) {
			break
		}
	}
	if err != nil {
		return m, nil, err
	}
	if files, err = host.Descriptors(oob[:oobn], flags); err != nil {
		return m, nil, err
	}
	switch {
	case n == 0 && len(files) == 0:
		return m, nil, io.EOF
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("%w: more than %d bytes", errProtocol, len(buf))
	default:
		m, err = decode(buf[:n], len(files))
	}
	if err != nil {
		host.CloseAll(files)
		return message{}, nil, err
	}
	return m, files, nil
}

// widen gives a link room for all that a relay registers.
func widen(fd int) {
	const room = 1 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, room) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, room)
	}
}
