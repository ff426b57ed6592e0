package listen

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
)

// HybridOptions say where to listen for one sandbox. The zero value means the
// defaults named at each field.
type HybridOptions struct {
	// Patterns say which VMM sockets to listen beside. Default: DefaultPatterns.
	Patterns []Pattern
	// Users may connect besides root, our own user and the owner of the socket's
	// directory. Default: none.
	Users []uint32
	// Owns reports whether a user's VMM is the sandbox's, for patterns with {user}.
	// Default: nobody's is.
	Owns func(uid uint32) bool
	// Pace says how often to look for directories. Default: often for 2 minutes, then
	// seldom.
	Pace *vmmdir.Pace
	// Listening is told of each socket before it has its name. Left is told when nobody is
	// accepted there any more, which may be after another socket has the name. Default:
	// nobody is told.
	Listening, Left func(Socket)
	// Sockets are left by another process: connections that wait there are accepted. Those
	// that are not the sandbox's are closed.
	Sockets []Socket
	// Warn is told of failures; none of them ends Serve.
	Warn func(error)
}

// Hybrid listens for the agent of one sandbox at the paths where VMMs with hybrid VSOCK
// connect. It need not know which VMM the sandbox has: a socket that nobody connects to
// does no harm.
type Hybrid struct {
	sandbox   string
	opts      HybridOptions
	handle    Handler
	listeners []*pathListener
	accepts   sync.WaitGroup
}

// NewHybrid returns a listener for a sandbox's agent; Serve runs it. It fails for a
// sandbox id or a pattern that makes no path.
func NewHybrid(sandbox string, opts HybridOptions, handle Handler) (*Hybrid, error) {
	if err := checkSandbox(sandbox); err != nil {
		return nil, err
	}
	if opts.Patterns == nil {
		opts.Patterns = DefaultPatterns()
	}
	if opts.Pace == nil {
		opts.Pace = vmmdir.NewPace(2 * time.Minute)
	}
	if opts.Listening == nil {
		opts.Listening = func(Socket) {}
	}
	if opts.Left == nil {
		opts.Left = func(Socket) {}
	}
	h := &Hybrid{sandbox: sandbox, opts: opts, handle: handle}
	for _, p := range opts.Patterns {
		path, err := p.listenPath(sandbox)
		if err != nil {
			return nil, err
		}
		h.listeners = append(h.listeners, &pathListener{hybrid: h, spot: NewSpot(path), report: loglimit.Reporter{To: opts.Warn}})
	}
	return h, nil
}

// least is the shortest time between two looks. The agent connects seconds after its
// VM's directory has appeared.
const least = 20 * time.Millisecond

// Serve listens until ctx is done, then removes its sockets. Directories may appear,
// vanish and reappear meanwhile.
func (h *Hybrid) Serve(ctx context.Context) {
	for _, b := range h.opts.Sockets {
		h.resume(b)
	}
	defer h.accepts.Wait()
	defer func() {
		for _, p := range h.listeners {
			p.leave()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, news := h.opts.Pace.Next(least)
		for _, p := range h.listeners {
			p.tend()
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-timer.C:
		}
	}
}

// pathListener listens at one path.
type pathListener struct {
	hybrid *Hybrid
	spot   *Spot
	report loglimit.Reporter
	failed time.Time   // when listening last failed
	socket *socketFile // nil: not listening

	emptied vmmdir.ID // the directory in which the socket had vanished,
	since   time.Time // and when
}

const (
	// failurePause is the pause after a failed attempt to listen: each attempt costs a
	// thread.
	failurePause = 500 * time.Millisecond
	// removalTime is how long it may take to remove a directory in which the socket has
	// vanished already.
	removalTime = 2 * time.Second
	// linger is how long a socket that has lost its name still accepts, for clients that
	// wait there already.
	linger = 100 * time.Millisecond
)

// tend starts listening if the directory is there, and listens again if the socket has
// vanished.
func (p *pathListener) tend() {
	if p.socket != nil {
		if p.socket.present() {
			return
		}
		if _, _, err := vmmdir.Identify(p.socket.path); err != nil {
			p.emptied, p.since = p.socket.dir, time.Now()
		}
		p.leave()
	}
	path, there := p.spot.Find(p.hybrid.opts.Owns)
	if !there || time.Since(p.failed) < failurePause || p.isBeingRemoved(path) {
		return
	}
	s, err := bindSocketFile(path, p.hybrid.opts)
	if errors.Is(err, vmmdir.ErrNone) || errors.Is(err, host.ErrLocked) {
		return
	}
	p.report.Tell(err)
	if err != nil {
		p.failed = time.Now()
		return
	}
	p.listen(s)
}

// isBeingRemoved reports whether somebody may be removing the directory of path, which
// a new file in it would hinder.
func (p *pathListener) isBeingRemoved(path string) bool {
	if time.Since(p.since) >= removalTime {
		return false
	}
	id, _, err := vmmdir.Identify(filepath.Dir(path))
	return err != nil || id == p.emptied
}

// listen starts to accept connections.
func (p *pathListener) listen(s *socketFile) {
	p.socket = s
	p.hybrid.accepts.Go(func() { p.hybrid.accept(s) })
}

// leave removes the socket; clients that have connected meanwhile are accepted.
func (p *pathListener) leave() {
	if p.socket != nil {
		p.socket.remove()
		_ = p.socket.SetDeadline(time.Now().Add(linger))
		p.socket = nil
	}
}

// accept takes connections until the path is left.
func (h *Hybrid) accept(s *socketFile) {
	defer func() {
		s.Close()
		h.opts.Left(s.kept())
	}()
	report := loglimit.Reporter{To: h.opts.Warn}
	_ = host.AcceptAll(context.Background(), host.Lingering(s.UnixListener), func(conn *net.UnixConn) {
		if err := host.CheckPeer(conn, s.users...); err != nil {
			report.Tell(&net.OpError{Op: "accept", Net: "unix", Addr: &net.UnixAddr{Name: s.path, Net: "unix"}, Err: err})
			conn.Close()
			return
		}
		h.handle(conn, Origin{Sandbox: h.sandbox, Path: s.path})
	}, report.Tell)
}
