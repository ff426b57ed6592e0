package receiver

import (
	"net"
	"net/netip"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Peer is who posts.
type Peer struct {
	// User is the process's user id.
	User uint32
	// Address is where the process is connected from, over TCP.
	Address netip.AddrPort
	// PID and Start are the process's, as in [host.Process], over a Unix socket.
	PID   int
	Start uint64
}

// user is a connection whose listener knows the peer's user.
type user interface{ User() uint32 }

// peerOf returns the other end of a connection.
func peerOf(c net.Conn) (p Peer) {
	if inner, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = inner.NetConn()
	}
	if u, ok := c.(user); ok {
		p.User = u.User()
	}
	switch at := c.RemoteAddr().(type) {
	case *net.TCPAddr:
		p.Address = at.AddrPort()
	case *net.UnixAddr:
		if u, ok := c.(*unixConn); ok {
			p.PID, p.Start = u.pid, u.start
		}
	}
	return p
}

// proc is the host's.
const proc = host.Proc("/proc")
