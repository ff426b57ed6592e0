package guard

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// send sends an entry with its descriptors.
func (e Entry) send(link int) error {
	if len(e.Files) > maxFiles {
		return fmt.Errorf("%w: %d descriptors in one entry", errProtocol, len(e.Files))
	}
	return host.WithDescriptors(e.Files, func(fds []int) error {
		return sendPacket(link, message{Type: typeStore, Name: e.Name, Kind: e.Kind, Data: e.Data}, fds...)
	})
}

// shutDown shuts the sockets of an entry down.
func (e Entry) shutDown() {
	for _, f := range e.Files {
		_ = host.ShutDown(f)
	}
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
