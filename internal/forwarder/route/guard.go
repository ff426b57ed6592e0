package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// Guard returns the endpoint's port without those who are not listened to: other users'
// processes than root's and our own, as which runtimes and relays run, and whoever
// cannot be told. They are reset unread. What the others post, Take is told by the same
// address.
//
// Any local user can connect as often as he likes, and a runtime waits behind him. So
// who is turned away costs little: a few system calls, no place among what is polled,
// no goroutine.
func (r *Router) Guard(port *net.TCPListener) (net.Listener, error) {
	g := &guarded{router: r, at: port.Addr(), to: port.Addr().(*net.TCPAddr).AddrPort(), spare: -1}
	var err error
	if g.file, err = port.File(); err != nil { // the listener's own is not to be read from
		return nil, fmt.Errorf("endpoint of the runtimes: %w", err)
	}
	if g.raw, err = g.file.SyscallConn(); err != nil {
		g.file.Close()
		return nil, fmt.Errorf("endpoint of the runtimes: %w", err)
	}
	port.Close() // it is g's now
	g.keepSpare()
	_ = r.diag.open() // if it cannot be, asking says so
	return g, nil
}

type guarded struct {
	router *Router
	at     net.Addr
	to     netip.AddrPort
	file   *os.File
	raw    syscall.RawConn

	mu    sync.Mutex // of one Accept after another
	batch []arrival
	spare int // a descriptor to accept with when there are no more; -1: none

	closing sync.Mutex
	closed  bool
	ready   []net.Conn // welcome, not asked for yet
}

// errNoListener: whoever has left us the port has had it refuse all, since we took too
// long to begin.
var errNoListener = errors.New("nobody listens there any more")

// arrival is a connection that nobody has looked at yet.
type arrival struct {
	fd   int
	from netip.AddrPort
}

// maxBatch bounds the connections that are accepted before they are looked at: where
// the kernel tells only of all sockets at once, that takes as long for many.
const maxBatch = 64

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		if conn := g.next(); conn != nil {
			return conn, nil
		}
		err := g.arrivals()
		if g.isClosed() {
			err = net.ErrClosed
		}
		if errors.Is(err, net.ErrClosed) || errors.Is(err, errNoListener) {
			return nil, &net.OpError{Op: "accept", Net: g.at.Network(), Addr: g.at, Err: err}
		}
		if err != nil {
			g.router.warn(fmt.Errorf("runtimes cannot be accepted: %w", err))
			if len(g.batch) == 0 {
				time.Sleep(acceptPause)
			}
		}
		g.look()
	}
}

func (g *guarded) isClosed() bool {
	g.closing.Lock()
	defer g.closing.Unlock()
	return g.closed
}

// next returns a connection that is welcome, nil if there is none.
func (g *guarded) next() net.Conn {
	g.closing.Lock()
	defer g.closing.Unlock()
	if len(g.ready) == 0 {
		return nil
	}
	conn := g.ready[0]
	g.ready = g.ready[1:]
	return conn
}

// arrivals waits for connections and accepts those that are there. The error may come
// with one: then there are no descriptors for more.
func (g *guarded) arrivals() error {
	g.batch = g.batch[:0]
	var failure error
	err := g.raw.Read(func(port uintptr) bool {
		for len(g.batch) < maxBatch {
			fd, from, err := accept(int(port))
			switch {
			case err == nil:
				g.batch = append(g.batch, arrival{fd, from})
			case errors.Is(err, unix.EAGAIN):
				return len(g.batch) > 0
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
			case errors.Is(err, unix.EINVAL):
				failure = errNoListener
				return true
			default:
				failure = os.NewSyscallError("accept", err)
				g.acceptOne(int(port))
				return true
			}
		}
		return true
	})
	return errors.Join(err, failure)
}

// acceptOne accepts one connection with the descriptor that is kept for that, if there
// is none in the batch: a runtime would wait for ever otherwise.
func (g *guarded) acceptOne(port int) {
	if len(g.batch) > 0 || g.spare < 0 {
		return
	}
	unix.Close(g.spare)
	g.spare = -1
	if fd, from, err := accept(port); err == nil {
		g.batch = append(g.batch, arrival{fd, from})
	} else {
		g.keepSpare()
	}
}

func (g *guarded) keepSpare() {
	if fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		g.spare = fd
	}
}

func accept(port int) (fd int, from netip.AddrPort, err error) {
	fd, sa, err := unix.Accept4(port, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		from = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		from = unmap(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
	}
	return fd, from, err
}

// look finds out whose the accepted connections are, resets the others' and serves the
// rest.
func (g *guarded) look() {
	if len(g.batch) == 0 {
		return
	}
	from := make([]netip.AddrPort, len(g.batch))
	for i, a := range g.batch {
		from[i] = a.from
	}
	all := g.router.sockets.find(from, g.to)
	welcome := make([]bool, len(all))
	for i, f := range all {
		if welcome[i] = g.router.judge(f); !welcome[i] {
			reset(g.batch[i].fd)
		}
	}
	if g.spare < 0 {
		g.keepSpare()
	}
	for i, f := range all {
		if welcome[i] {
			g.serve(g.batch[i], f.socket)
		}
	}
}

// serve makes a connection of one that is welcome.
func (g *guarded) serve(a arrival, s socket) {
	file := os.NewFile(uintptr(a.fd), "connection")
	defer file.Close()
	conn, err := net.FileConn(file) // of a copy
	if err != nil {
		linger(a.fd)
		g.router.losses.Add(losses.NoDescriptors, 1)
		g.router.warn(fmt.Errorf("a runtime cannot be served: %w", err))
		return
	}
	g.closing.Lock()
	defer g.closing.Unlock()
	if g.closed {
		conn.Close()
		return
	}
	g.router.opened(a.from, s)
	g.ready = append(g.ready, &guardedConn{Conn: conn, router: g.router, from: a.from})
}

// reset ends a connection at once, with nothing left of it in the kernel.
func reset(fd int) {
	linger(fd)
	unix.Close(fd)
}

// linger has a connection reset when it is closed.
func linger(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Close implements net.Listener.
func (g *guarded) Close() error {
	g.closing.Lock()
	g.closed = true
	ready := g.ready
	g.ready = nil
	g.closing.Unlock()
	for _, conn := range ready {
		conn.Close()
	}
	err := g.file.Close()
	g.mu.Lock() // no Accept is at it any more
	defer g.mu.Unlock()
	if g.spare >= 0 {
		unix.Close(g.spare)
		g.spare = -1
	}
	return err
}

// Addr implements net.Listener.
func (g *guarded) Addr() net.Addr { return g.at }

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
