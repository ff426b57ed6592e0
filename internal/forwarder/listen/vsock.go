package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/private"
)

// VSOCKOptions say how a host's relays share the VSOCK port. The zero value means
// the defaults named at each field, but for Dir, which must be given.
type VSOCKOptions struct {
	// Dir is a directory that all relays of the host name, and nothing else uses;
	// it is made with mode 0700.
	Dir string
	// Hold is how long a connection whose CID nobody has claimed waits, unread,
	// before the porter keeps it as of an unknown sandbox. The agent does not
	// notice: what it sends waits in the socket. Default 10 s.
	Hold time.Duration
	// MaxHeld bounds the connections that wait so; what is beyond is kept at once.
	// Default 64. Of one VM at most four may be on their way to a relay; what is
	// beyond is closed, for an agent has one.
	MaxHeld int
	// Warn is told what goes wrong; nothing ends by it.
	Warn func(error)

	transport transport // tests have another
}

// VSOCK is a relay's share in the host's VSOCK port. One of the relays, the
// porter, accepts; each, the porter included, is handed the connections of the
// CIDs that it has claimed, before a byte of them is read.
//
// The porter is who holds the lock on a file in Dir. It gives each relay a copy of
// the listening socket, so that when it ends the port stays open: VMs that connect
// meanwhile wait in the socket's queue for the next porter, which the end of its
// connection to the last one wakes. What was handed over is no concern of the
// porter any more; its end only takes along what no relay had claimed.
type VSOCK struct {
	opts   VSOCKOptions
	handle Handler
	report vmmdir.Reporter

	mu       sync.Mutex
	claims   map[uint32]string // sandbox by CID
	porter   *net.UnixConn     // nil: there is none at the moment
	listener *socket.Conn      // nil: not seen yet
}

// NewVSOCK returns a share in the port, which Serve takes part with.
func NewVSOCK(opts VSOCKOptions, handle Handler) *VSOCK {
	if opts.Hold <= 0 {
		opts.Hold = 10 * time.Second
	}
	if opts.MaxHeld <= 0 {
		opts.MaxHeld = 64
	}
	if opts.transport.listen == nil {
		opts.transport = vsockTransport()
	}
	return &VSOCK{opts: opts, handle: handle, report: vmmdir.Reporter{To: opts.Warn}, claims: make(map[uint32]string)}
}

// Claim says that the VM with the CID is the sandbox's, from now on. It may be
// called before and while Serve runs; the last relay to claim a CID gets it.
func (v *VSOCK) Claim(sandbox string, cid uint32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.claims[cid] = sandbox
	if v.porter != nil {
		// If that fails, the porter is gone, and the next one is told.
		_ = send(v.porter, kindClaim, cid, nil)
	}
}

// Pauses between attempts to find a porter or become it. The first attempts
// follow the end of another porter, when it takes milliseconds until the next.
const (
	soon  = 10 * time.Millisecond
	later = 500 * time.Millisecond
)

// Serve takes part until ctx is done. The error says that Dir cannot be used.
func (v *VSOCK) Serve(ctx context.Context) error {
	if err := private.MakeDir(v.opts.Dir); err != nil {
		return fmt.Errorf("directory of the VSOCK porter: %w", err)
	}
	// The porter ends after our own part, or it would pass on to us what waits.
	portCtx, endPorter := context.WithCancel(context.WithoutCancel(ctx))
	var porting sync.WaitGroup
	defer porting.Wait()
	defer endPorter()
	defer v.forgetListener()
	isPorter := false
	pause := soon
	for ctx.Err() == nil {
		if !isPorter {
			p, err := v.becomePorter()
			if isPorter = err == nil; isPorter {
				porting.Go(func() { p.run(portCtx) })
			} else if !errors.Is(err, unix.EWOULDBLOCK) {
				v.report.Tell(err)
			}
		}
		conn, err := v.dial(ctx)
		if err == nil {
			pause = soon
			v.member(ctx, conn)
			continue
		}
		if pause = min(2*pause, later); pause == later {
			v.report.Tell(fmt.Errorf("connect to the VSOCK porter: %w", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// member takes connections from the porter until one of the two ends.
func (v *VSOCK) member(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := v.register(conn); err != nil {
		return
	}
	defer func() {
		v.mu.Lock()
		v.porter = nil
		v.mu.Unlock()
	}()
	v.report.Tell(nil)
	for {
		m, err := receive(conn)
		if err != nil {
			if errors.Is(err, errProtocol) {
				v.report.Tell(err)
			}
			return
		}
		v.receive(m)
	}
}

// register tells the porter what we have and what we want.
func (v *VSOCK) register(conn *net.UnixConn) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listener != nil {
		if d, err := passable(v.listener); err == nil {
			if err := send(conn, kindListener, 0, d); err != nil {
				return err
			}
		}
	}
	for cid := range v.claims {
		if err := send(conn, kindClaim, cid, nil); err != nil {
			return err
		}
	}
	v.porter = conn
	return nil
}

func (v *VSOCK) receive(m message) {
	switch m.kind {
	case kindListener:
		v.keepListener(m.file)
	case kindConnection:
		conn, err := socketOf(m.file)
		if err != nil {
			v.report.Tell(fmt.Errorf("connection of VM %d: %w", m.cid, err))
			return
		}
		v.mu.Lock()
		from := Origin{Sandbox: v.claims[m.cid], CID: m.cid}
		v.mu.Unlock()
		v.handle(conn, from)
	default:
		m.close()
	}
}

// keepListener keeps the port open.
func (v *VSOCK) keepListener(f *os.File) {
	l, err := socketOf(f)
	if err != nil {
		v.report.Tell(fmt.Errorf("keep the VSOCK port open: %w", err))
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listener != nil {
		v.listener.Close()
	}
	v.listener = l
}

func (v *VSOCK) forgetListener() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listener != nil {
		v.listener.Close()
		v.listener = nil
	}
}

// copyListener returns the listening socket once more, nil if there is none.
func (v *VSOCK) copyListener() *socket.Conn {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.listener == nil {
		return nil
	}
	l, err := duplicate(v.listener)
	if err != nil {
		return nil
	}
	return l
}

// dial connects to the porter.
func (v *VSOCK) dial(ctx context.Context) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unixpacket", v.socketPath())
	if err != nil {
		return nil, err
	}
	u := conn.(*net.UnixConn)
	if err := host.CheckPeer(u, uint32(os.Geteuid())); err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

func (v *VSOCK) socketPath() string { return filepath.Join(v.opts.Dir, "porter.sock") }

// lock makes us the porter until the file is closed; EWOULDBLOCK if another is.
func (v *VSOCK) lock() (*os.File, error) {
	path := filepath.Join(v.opts.Dir, "porter.lock")
	f, err := private.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of the VSOCK porter: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock of the VSOCK porter: %w", err)
	}
	return f, nil
}
