package listen

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// abstractTransport stands in for AF_VSOCK: an abstract Unix socket is, like a
// VSOCK port, a name that one socket can have and that ends with it. A VM's CID is
// in the name that it connects from.
func abstractTransport(name string) transport {
	return transport{
		listen: func() (*socket.Conn, error) {
			c, err := socket.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0, "stand-in", nil)
			if err != nil {
				return nil, err
			}
			if err = c.Bind(&unix.SockaddrUnix{Name: "@" + name}); err == nil {
				err = c.Listen(128)
			}
			if err != nil {
				c.Close()
				return nil, err
			}
			return c, nil
		},
		cid: func(sa unix.Sockaddr) uint32 {
			from := strings.Split(sa.(*unix.SockaddrUnix).Name, "/")
			n, _ := strconv.ParseUint(from[len(from)-2], 10, 32)
			return uint32(n)
		},
	}
}

var dials atomic.Int64

// dialVM connects as a VM with the CID does.
func dialVM(name string, cid uint32) (*net.UnixConn, error) {
	d := net.Dialer{LocalAddr: &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@%s/%d/%d", name, cid, dials.Add(1))}}
	c, err := d.DialContext(context.Background(), "unix", "@"+name)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// mustDialVM connects as soon as somebody has the port.
func mustDialVM(t *testing.T, name string, cid uint32) *net.UnixConn {
	t.Helper()
	var conn *net.UnixConn
	eventually(t, "VM connects", func() (ok bool) {
		var err error
		conn, err = dialVM(name, cid)
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	return conn
}
