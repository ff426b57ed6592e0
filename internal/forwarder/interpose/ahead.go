package interpose

import "net"

// aheadConn is a connection of which some bytes have been read already.
type aheadConn struct {
	*net.UnixConn
	ahead []byte
}

// withAhead returns conn with the bytes to be read first.
func withAhead(conn *net.UnixConn, ahead []byte) net.Conn {
	if len(ahead) == 0 {
		return conn
	}
	return &aheadConn{UnixConn: conn, ahead: ahead}
}

func (c *aheadConn) Read(b []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.UnixConn.Read(b)
	}
	n := copy(b, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil
	}
	return n, nil
}
