package post

import (
	"net"
	"sync"
	"sync/atomic"
)

// Limited returns a listener that has at most the given number of connections open.
// Further ones are closed at once, and counted in turned.
func Limited(l net.Listener, connections int, turned *atomic.Uint64) net.Listener {
	return &limited{Listener: l, max: int64(connections), turned: turned}
}

type limited struct {
	net.Listener
	max    int64
	open   atomic.Int64
	turned *atomic.Uint64
}

func (l *limited) Accept() (net.Conn, error) {
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
		return &Conn{Conn: c, of: l}, nil
	}
}

// Conn is a connection of a Limited listener; NetConn returns the listener's own.
type Conn struct {
	net.Conn
	of   *limited
	once sync.Once
}

// NetConn returns the connection that was accepted.
func (c *Conn) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.of.open.Add(-1) })
	return err
}
