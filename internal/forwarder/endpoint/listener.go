package endpoint

import (
	"net"
	"sync"
	"sync/atomic"
)

// listener bounds the open connections.
type listener struct {
	net.Listener
	max    int64
	open   atomic.Int64
	turned *atomic.Uint64
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
	c.once.Do(func() { c.of.open.Add(-1) })
	return err
}
