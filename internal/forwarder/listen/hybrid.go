package listen

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
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
	// Warn is told of failures; none of them ends Serve.
	Warn func(error)
	// Listening is told of each socket before anyone is accepted there, and Left of its
	// path before it is closed.
	Listening func(Socket)
	Left      func(path string)
	// Sockets are left by another process. Those that are not the sandbox's are closed.
	Sockets []Socket
}

// Hybrid listens for the agent of one sandbox at the paths where VMMs with hybrid VSOCK
// connect. It need not know which VMM the sandbox has: a socket that nobody connects to
// does no harm.
type Hybrid struct {
	sandbox string
	opts    HybridOptions
	handle  Handler
	places  []*place
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
		opts.Left = func(string) {}
	}
	h := &Hybrid{sandbox: sandbox, opts: opts, handle: handle}
	for _, p := range opts.Patterns {
		path, err := p.listenPath(sandbox)
		if err != nil {
			return nil, err
		}
		h.places = append(h.places, &place{hybrid: h, spot: NewSpot(path), report: vmmdir.Reporter{To: opts.Warn}})
	}
	for _, s := range opts.Sockets {
		if !h.resume(s) {
			opts.Left(s.Path)
			s.Listener.Close()
		}
	}
	return h, nil
}

// least is the shortest time between two looks. The agent connects seconds after its
// VM's directory has appeared.
const least = 20 * time.Millisecond

// Serve listens until ctx is done, then removes its sockets. Directories may appear,
// vanish and reappear meanwhile.
func (h *Hybrid) Serve(ctx context.Context) {
	defer func() {
		for _, p := range h.places {
			p.leave()
		}
	}()
	for _, p := range h.places {
		if p.socket != nil {
			p.serve()
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		wait, news := h.opts.Pace.Next(least)
		for _, p := range h.places {
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

// place is one path to listen at.
type place struct {
	hybrid *Hybrid
	spot   *Spot
	report vmmdir.Reporter
	failed time.Time   // when listening last failed
	socket *socketFile // nil: not listening
	accept sync.WaitGroup
}

// failurePause is the pause after a failed attempt to listen: each attempt costs a
// thread.
const failurePause = 500 * time.Millisecond

// tend starts listening if the directory is there, and listens again if the socket has
// vanished.
func (p *place) tend() {
	if p.socket != nil {
		if p.socket.present() {
			return
		}
		p.leave()
	}
	path, there := p.spot.Find(p.hybrid.opts.Owns)
	if !there || time.Since(p.failed) < failurePause {
		return
	}
	s, err := bindSocketFile(path, p.hybrid.opts.Users)
	if errors.Is(err, vmmdir.ErrNone) || errors.Is(err, host.ErrLocked) {
		return
	}
	p.report.Tell(err)
	if err != nil {
		p.failed = time.Now()
		return
	}
	p.socket = s
	p.serve()
}

// serve accepts at the place's socket.
func (p *place) serve() {
	s := p.socket
	p.hybrid.opts.Listening(s.kept())
	p.accept.Go(func() { p.hybrid.accept(s) })
}

func (p *place) leave() {
	if p.socket != nil {
		p.hybrid.opts.Left(p.socket.path)
		p.socket.remove()
		p.accept.Wait()
		p.socket = nil
	}
}

// acceptPause is the pause after a failed accept, for instance for want of descriptors.
const acceptPause = 100 * time.Millisecond

// accept takes connections until the socket is closed.
func (h *Hybrid) accept(s *socketFile) {
	var report vmmdir.Reporter
	report.To = h.opts.Warn
	for {
		conn, err := s.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			report.Tell(err)
			time.Sleep(acceptPause)
			continue
		}
		if err := host.CheckPeer(conn, s.users...); err != nil {
			report.Tell(&net.OpError{Op: "accept", Net: "unix", Addr: &net.UnixAddr{Name: s.path, Net: "unix"}, Err: err})
			conn.Close()
			continue
		}
		h.handle(conn, Origin{Sandbox: h.sandbox, Path: s.path})
	}
}
