package listen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// listenPause is the pause between attempts while another program has the port.
const listenPause = time.Second

// OpenVSOCK listens at the agents' port and returns the non-blocking descriptor. It
// fails with EADDRINUSE while any process has the port.
func OpenVSOCK() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("VSOCK: %w", err)
	}
	if err = unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: Port}); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen at VSOCK port %d: %w", Port, err)
	}
	return fd, nil
}

// VSOCKConn makes a connection of a descriptor that the guard has accepted, and takes
// the descriptor over.
func VSOCKConn(f *os.File) (Conn, error) {
	defer f.Close()
	return socket.FileConn(f, "vsock")
}

// AcceptVSOCK hands on the connections of all the host's VMs until ctx is done. It is
// for a host without a guard, which otherwise accepts at the port for relays. While
// another program has the port, it tells warn and tries again.
func AcceptVSOCK(ctx context.Context, warn func(error), handle Handler) {
	acceptOver(ctx, vsockTransport(), warn, handle)
}

func acceptOver(ctx context.Context, t transport, warn func(error), handle Handler) {
	report := loglimit.Reporter{To: warn}
	l, err := t.listen()
	for err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: until another program lets go of the port, no spans come from QEMU's VMs", err)
		}
		report.Tell(err)
		if !sleep.For(ctx, listenPause) {
			return
		}
		l, err = t.listen()
	}
	defer l.Close()
	_ = host.AcceptAll(ctx, func() (vsockPeer, error) { return t.accept(ctx, l) }, func(p vsockPeer) {
		if p.cid < firstGuest || ctx.Err() != nil {
			p.Close() // from the host itself, which has no agent
			return
		}
		handle(p.Conn, Origin{CID: p.cid})
	}, func(err error) { report.Tell(fmt.Errorf("accept at VSOCK port %d: %w", Port, err)) })
}

// vsockPeer is a connection and the CID that it comes from.
type vsockPeer struct {
	*socket.Conn
	cid uint32
}

// transport is AF_VSOCK, or in tests a stand-in for it.
type transport struct {
	// listen opens the host's one listening socket. It fails with EADDRINUSE while
	// any process has it open.
	listen func() (*socket.Conn, error)
	// cid returns a peer's CID.
	cid func(unix.Sockaddr) uint32
}

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

// firstGuest is the lowest CID that a VM can have; those below are the hypervisor's and
// the host's.
const firstGuest = 3

// accept waits for the next connection.
func (t transport) accept(ctx context.Context, l *socket.Conn) (vsockPeer, error) {
	conn, sa, err := l.Accept(ctx, 0)
	if err != nil {
		return vsockPeer{}, err
	}
	return vsockPeer{conn, t.cid(sa)}, nil
}
