package guard

import (
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// send sends an entry with its descriptors.
func (e Entry) send(link int) error {
	if len(e.Files) > maxFiles {
		return fmt.Errorf("%w: %d descriptors in one entry", errProtocol, len(e.Files))
	}
	return withDescriptors(e.Files, nil, func(fds []int) error {
		return sendPacket(link, message{Type: typeStore, Name: e.Name, Kind: e.Kind, Data: e.Data}, fds...)
	})
}

// shutDown shuts the sockets of an entry down.
func (e Entry) shutDown() {
	for _, f := range e.Files {
		_ = control(f, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
	}
}

// withDescriptors calls f with the descriptors of all files, none of which is closed
// meanwhile.
func withDescriptors(files []syscall.Conn, fds []int, f func(fds []int) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	return control(files[0], func(fd int) error { return withDescriptors(files[1:], append(fds, fd), f) })
}

// control calls f with a descriptor.
func control(c syscall.Conn, f func(fd int) error) error {
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

// awaitPacket waits for a message.
func awaitPacket(link *net.UnixConn, buf []byte) (m message, files []int, err error) {
	raw, err := link.SyscallConn()
	if err != nil {
		return m, nil, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		m, files, err = receivePacket(int(fd), buf)
		return err != unix.EAGAIN
	})
	if rerr != nil {
		return m, nil, rerr
	}
	return m, files, err
}
