package main

import (
	"net"
	"net/netip"
	"sync"

	"github.com/shimtrace/shimtrace/forwarder/runtimes"
)

// guarded is the port without those who may not post: they are not even read.
type guarded struct {
	net.Listener
	router *runtimes.Router
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, to := conn.RemoteAddr().(*net.TCPAddr).AddrPort(), g.Addr().(*net.TCPAddr).AddrPort()
		if g.router.Opened(from, to) {
			return &guardedConn{Conn: conn, router: g.router, from: from}, nil
		}
		conn.Close()
	}
}

// guardedConn tells of its end.
type guardedConn struct {
	net.Conn
	router *runtimes.Router
	from   netip.AddrPort
	once   sync.Once
}

// Close implements net.Conn.
func (c *guardedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.router.Closed(c.from) })
	return err
}
