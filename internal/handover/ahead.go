package handover

import "net"

// Ahead is a connection from which some bytes have been read already. Read returns these
// first.
type Ahead struct {
	*net.UnixConn
	Bytes []byte
	// Raw is how many of them are not part of what is spoken afterwards: they pass as
	// they are.
	Raw int
}

// Read implements io.Reader.
func (c *Ahead) Read(b []byte) (int, error) {
	if len(c.Bytes) == 0 {
		return c.UnixConn.Read(b)
	}
	n := copy(b, c.Bytes)
	c.Bytes = c.Bytes[n:]
	return n, nil
}
