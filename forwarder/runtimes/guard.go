package runtimes

import (
	"net"
	"net/netip"
	"sync"
)

// Guard returns the endpoint's port without those who are not listened to: other users'
// processes than root's and our own, as which runtimes and relays run. They are closed
// unread. What the others post, Take is told by the same address.
func (r *Router) Guard(port net.Listener) net.Listener { return &guarded{port, r} }

type guarded struct {
	net.Listener
	router *Router
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, to := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), g.Addr().(*net.TCPAddr).AddrPort()
		if g.router.opened(from, to) {
			return &guardedConn{Conn: conn, router: g.router, from: from}, nil
		}
		conn.Close()
	}
}

// guardedConn tells of its end.
type guardedConn struct {
	net.Conn
	router *Router
	from   netip.AddrPort
	once   sync.Once
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.router.ended(c.from) })
	return err
}
