package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// sockDestroy makes the kernel reset a socket (Linux, include/uapi/linux/sock_diag.h,
// SOCK_DESTROY). It takes CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.
const sockDestroy = 21

// abort resets all of a process's sockets at the addresses, so that nobody waits for
// it. It is for a process that was killed but does not end because a disk call in it
// hangs: until the call returns, its sockets stay open.
func abort(addresses []string) (err error) {
	var d diagnoser
	if err := d.open(); err != nil {
		return err
	}
	defer d.close()
	for _, text := range addresses {
		at, perr := netip.ParseAddrPort(text)
		if perr != nil {
			return fmt.Errorf("reset connections: %w", perr)
		}
		lerr := host.Proc("/proc").TCP(at.Port(), func(s host.TCPSocket) {
			if s.Local != at {
				return
			}
			// Not all kernels close a listening socket this way. Its new connections are reset
			// by the next call.
			if derr := d.destroy(s.Local, s.Remote); !s.Listening {
				err = errors.Join(err, derr)
			}
		})
		err = errors.Join(err, lerr)
	}
	return err
}

// destroy makes the kernel reset the socket between two addresses. The socket need not
// exist.
func (d *diagnoser) destroy(from, to netip.AddrPort) error {
	if err := d.send(sockDestroy, from, to); err != nil {
		return err
	}
	// The kernel answers only on failure.
	var answer [512]byte
	n, err := unix.Read(d.fd, answer[:])
	if err != nil || n < headerSize+4 {
		return nil
	}
	if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(answer[headerSize:]))); errno != 0 && errno != unix.ENOENT {
		return fmt.Errorf("reset the connection of %v to %v: %w", from, to, errno)
	}
	return nil
}
