package host

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxDescriptors is how many descriptors one message can carry (Linux, SCM_MAX_FD).
const MaxDescriptors = 253

// ErrDescriptors means that more descriptors came than there was room for, or than were
// asked for.
var ErrDescriptors = errors.New("descriptors cannot be received")

// Send sends a message, with copies of descriptors beside its first byte (SCM_RIGHTS). It
// waits for room until conn's write deadline.
func Send(conn *net.UnixConn, data []byte, with ...syscall.Conn) error {
	return WithDescriptors(with, func(fds []int) error { return SendDescriptors(conn, data, fds) })
}

// SendDescriptors is Send for descriptors given as numbers.
func SendDescriptors(conn *net.UnixConn, data []byte, fds []int) error {
	if len(fds) == 0 {
		_, err := conn.Write(data)
		return err
	}
	n, _, err := conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	if err == nil && n < len(data) { // a stream may take a part
		_, err = conn.Write(data[n:])
	}
	return err
}

// WithDescriptors calls f with the descriptors of all, which stay open meanwhile.
func WithDescriptors(all []syscall.Conn, f func(fds []int) error) error {
	return withDescriptors(all, nil, f)
}

func withDescriptors(all []syscall.Conn, fds []int, f func(fds []int) error) error {
	if len(all) == 0 {
		return f(fds)
	}
	return Control(all[0], func(fd int) error { return withDescriptors(all[1:], append(fds, fd), f) })
}

// Control calls f with a descriptor, which stays open meanwhile.
func Control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := raw.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// Ready reports whether something can be read or accepted at once. It is for who has waited
// until a deadline: the deadline may have passed while the process had no processor, and what
// came before is still there.
func Ready(c syscall.Conn) (ready bool) {
	_ = Control(c, func(fd int) error {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ready = err == nil && n > 0
		return err
	})
	return ready
}

// ShutDown shuts a socket down, whatever processes have it open.
func ShutDown(c syscall.Conn) error {
	return Control(c, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
}

// Receive waits for a message until conn's read deadline. It returns the message's length
// in data and the descriptors that came with it, at most most; the caller closes them.
// io.EOF means that the other end is closed. With any other error it returns no
// descriptors and closes those that came.
func Receive(conn *net.UnixConn, data []byte, most int) (n int, files []*os.File, err error) {
	rights := make([]byte, unix.CmsgSpace(4*max(most, 1)))
	n, rightsN, flags, _, err := conn.ReadMsgUnix(data, rights) // with MSG_CMSG_CLOEXEC
	if LastWords(err) {
		n, rightsN, flags, _, err = conn.ReadMsgUnix(data, rights)
	}
	if err != nil {
		return 0, nil, err
	}
	fds, err := Descriptors(rights[:rightsN], flags)
	if err != nil {
		return 0, nil, err
	}
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "passed"))
	}
	switch {
	case n == 0:
		err = io.EOF
	case flags&unix.MSG_TRUNC != 0:
		err = fmt.Errorf("message of more than %d bytes", len(data))
	case len(files) > most:
		err = ErrDescriptors
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return 0, nil, err
	}
	return n, files, nil
}

// LastWords reports whether err says that the other end of a socket of packets was closed
// before it had read everything. Linux says so once, before what that end had sent, which
// can still be read (unix(7), SOCK_SEQPACKET; net/unix/af_unix.c, unix_release_sock).
func LastWords(err error) bool { return errors.Is(err, unix.ECONNRESET) }

// Descriptors returns the descriptors in control messages from recvmsg(2), with its
// flags. If some are missing it returns an error and none.
func Descriptors(control []byte, flags int) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	for i := range messages {
		if messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		passed, perr := unix.ParseUnixRights(&messages[i])
		fds, err = append(fds, passed...), errors.Join(err, perr)
	}
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = ErrDescriptors
	}
	if err != nil {
		CloseAll(fds)
		return nil, err
	}
	return fds, nil
}

// CloseAll closes descriptors given as numbers.
func CloseAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
