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

// Admit returns a listener at an endpoint's port that admits only processes of root, of
// our own user, as which runtimes and relays run, and of the given ones. It resets all
// other connections unread, including those whose process cannot be found. Take
// identifies processes of root and our own user by their address.
//
// Any local user can connect as often as they like, and runtimes queue behind them. So
// turning one away must cost little: a few system calls, no polled descriptor, no
// goroutine.
func (r *Router) Admit(port *net.TCPListener, users ...uint32) (net.Listener, error) {
	g := &admission{router: r, users: users, at: port.Addr(), to: port.Addr().(*net.TCPAddr).AddrPort(), spare: -1}
	var err error
	if g.file, err = port.File(); err != nil { // the listener's own descriptor cannot be read from
		return nil, fmt.Errorf("endpoint of the runtimes: %w", err)
	}
	if g.raw, err = g.file.SyscallConn(); err != nil {
		g.file.Close()
		return nil, fmt.Errorf("endpoint of the runtimes: %w", err)
	}
	port.Close() // g has its own descriptor
	g.keepSpare()
	_ = r.diag.open() // if it cannot, asking reports why
	return g, nil
}

type admission struct {
	router *Router
	users  []uint32 // that are admitted, besides root and our own
	at     net.Addr
	to     netip.AddrPort
	file   *os.File
	raw    syscall.RawConn

	mu    sync.Mutex // serializes Accept
	batch []arrival
	spare int // a descriptor to free when there are no more; -1: none

	closing sync.Mutex
	closed  bool
	ready   []net.Conn // admitted, not returned by Accept yet
}

// errNoListener: the process that left us the port has shut it down, since we took too
// long to start.
var errNoListener = errors.New("nobody listens there any more")

// arrival is an accepted connection that has not been looked at.
type arrival struct {
	fd   int
	from netip.AddrPort
}

// maxBatch bounds the connections accepted before they are looked at. Where the kernel
// only lists all sockets at once, one look serves many.
const maxBatch = 64

// Accept implements net.Listener.
func (g *admission) Accept() (net.Conn, error) {
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

func (g *admission) isClosed() bool {
	g.closing.Lock()
	defer g.closing.Unlock()
	return g.closed
}

// next returns an admitted connection, nil if there is none.
func (g *admission) next() net.Conn {
	g.closing.Lock()
	defer g.closing.Unlock()
	if len(g.ready) == 0 {
		return nil
	}
	conn := g.ready[0]
	g.ready = g.ready[1:]
	return conn
}

// arrivals waits for connections and accepts those that are there. It may return an
// error and connections: then there are no descriptors for more.
func (g *admission) arrivals() error {
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

// acceptOne accepts one connection with the spare descriptor if the batch is empty:
// else a runtime would wait for ever.
func (g *admission) acceptOne(port int) {
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

func (g *admission) keepSpare() {
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

// look finds out who made the accepted connections, serves the admitted ones and resets
// the others.
func (g *admission) look() {
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
		if welcome[i] = g.router.judge(f, g.users); !welcome[i] {
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

// serve makes an admitted connection ready for Accept.
func (g *admission) serve(a arrival, s socket) {
	file := os.NewFile(uintptr(a.fd), "connection")
	defer file.Close()
	conn, err := net.FileConn(file) // duplicates the descriptor
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
	if ours(s.uid) {
		g.router.opened(a.from, s)
	}
	g.ready = append(g.ready, &admitted{Conn: conn, router: g.router, from: a.from, uid: s.uid})
}

// reset closes a connection at once, leaving nothing in the kernel.
func reset(fd int) {
	linger(fd)
	unix.Close(fd)
}

// linger makes closing a connection reset it.
func linger(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// Close implements net.Listener.
func (g *admission) Close() error {
	g.closing.Lock()
	g.closed = true
	ready := g.ready
	g.ready = nil
	g.closing.Unlock()
	for _, conn := range ready {
		conn.Close()
	}
	err := g.file.Close()
	g.mu.Lock() // wait for a running Accept
	defer g.mu.Unlock()
	if g.spare >= 0 {
		unix.Close(g.spare)
		g.spare = -1
	}
	return err
}

// Addr implements net.Listener.
func (g *admission) Addr() net.Addr { return g.at }

// admitted tells the router when it is closed.
type admitted struct {
	net.Conn
	router *Router
	from   netip.AddrPort
	uid    uint32
	once   sync.Once
}

// User returns the user of the process at the other end.
func (c *admitted) User() uint32 { return c.uid }

// Close implements net.Conn.
func (c *admitted) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.router.ended(c.from) })
	return err
}
