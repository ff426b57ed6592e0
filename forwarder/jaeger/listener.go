package jaeger

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// listener bounds the open connections, and tells of each.
type listener struct {
	net.Listener
	max            int64
	open           atomic.Int64
	opened, closed func(netip.AddrPort)
	turned         *atomic.Uint64
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.open.Add(1) > l.max {
			l.open.Add(-1)
			l.turned.Add(1)
			c.Close()
			continue
		}
		if l.opened != nil {
			l.opened(addrPort(c.RemoteAddr()))
		}
		return &conn{Conn: c, of: l}, nil
	}
}

type conn struct {
	net.Conn
	of   *listener
	once sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.of.open.Add(-1)
		if c.of.closed != nil {
			c.of.closed(addrPort(c.RemoteAddr()))
		}
	})
	return err
}
