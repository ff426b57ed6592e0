package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// sockDestroy has the kernel reset a socket (Linux, include/uapi/linux/sock_diag.h,
// SOCK_DESTROY), which takes CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.
const sockDestroy = 21

// abort resets all that a process has open at the addresses: those who wait for it go on.
// It is for one that has been killed and does not end, since a call of a disk in it hangs:
// until that returns, its sockets stay open.
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
			// Not all kernels close a port so: then who comes is reset the next time.
			if derr := d.destroy(s.Local, s.Remote); !s.Listening {
				err = errors.Join(err, derr)
			}
		})
		err = errors.Join(err, lerr)
	}
	return err
}

// destroy has the kernel reset the socket between two addresses. It need not be there.
func (d *diagnoser) destroy(from, to netip.AddrPort) error {
	if err := d.send(sockDestroy, from, to); err != nil {
		return err
	}
	// The kernel says only what fails.
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
