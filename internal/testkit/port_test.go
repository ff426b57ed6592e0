package testkit

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFreePort: who names the port may open it, and nobody else gets it.
func TestFreePort(t *testing.T) {
	at := FreePort(t)
	if _, err := net.Dial("tcp", at); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("somebody listens: %v", err)
	}
	for range 2 {
		l, err := net.Listen("tcp", at)
		Check(t, err)
		if other, err := net.Listen("tcp", at); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("two listen: %v, %v", other, err)
		}
		conn, err := net.Dial("tcp", at)
		Check(t, err)
		conn.Close()
		l.Close()
	}
	// As if all others were taken.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	Check(t, err)
	defer unix.Close(fd)
	Check(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	port := int(netip.MustParseAddrPort(at).Port())
	const localPortRange = 51 // IP_LOCAL_PORT_RANGE
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, localPortRange, port|port<<16); err != nil {
		t.Skip("the kernel knows no range for one socket: ", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("somebody gets it who wants any: %v", err)
	}
}
