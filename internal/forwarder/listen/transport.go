package listen

import (
	"context"
	"fmt"
	"os"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// transport is what VMs connect over: AF_VSOCK, or in tests a stand-in for it.
type transport struct {
	// listen opens the host's one listening socket. It fails with EADDRINUSE while
	// any process has it open.
	listen func() (*socket.Conn, error)
	// cid returns the CID of a peer.
	cid func(unix.Sockaddr) uint32
}

// vsockTransport is AF_VSOCK.
func vsockTransport() transport {
	return transport{listen: listenVSOCK, cid: func(sa unix.Sockaddr) uint32 {
		if vm, ok := sa.(*unix.SockaddrVM); ok {
			return vm.CID
		}
		return 0
	}}
}

func listenVSOCK() (*socket.Conn, error) {
	fd, err := OpenVSOCK()
	if err != nil {
		return nil, err
	}
	return socket.New(fd, "vsock")
}

// firstGuest is the lowest CID of a VM; those below are the hypervisor's and the
// host's own.
const firstGuest = 3

// accept waits for the next connection and tells whose it is.
func (t transport) accept(ctx context.Context, l *socket.Conn) (*socket.Conn, uint32, error) {
	conn, sa, err := l.Accept(ctx, 0)
	if err != nil {
		return nil, 0, err
	}
	return conn, t.cid(sa), nil
}

// socketOf makes a socket of a passed descriptor, which it takes over.
func socketOf(f *os.File) (*socket.Conn, error) {
	defer f.Close()
	return socket.FileConn(f, f.Name())
}

// passable gives access to a socket's descriptor.
func passable(c *socket.Conn) (descriptor, error) { return c.SyscallConn() }

// duplicate returns a second descriptor of a socket.
func duplicate(c *socket.Conn) (*socket.Conn, error) {
	d, err := passable(c)
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := d.Control(func(of uintptr) { fd, derr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, fmt.Errorf("duplicate a socket: %w", derr)
	}
	return socket.New(fd, "vsock")
}
