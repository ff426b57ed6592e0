package listen

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/forwarder/vmmdir"
)

// HybridOptions say where to listen for one sandbox. The zero value means the
// defaults named at each field.
type HybridOptions struct {
	// Patterns are the places; DefaultPatterns.
	Patterns []Pattern
	// Users may connect beside root, ourselves and the owner of the socket's
	// directory. None.
	Users []uint32
	// Watch is for how long directories are watched by inotify, which the kernel
	// rations by user (128 watchers by default), or else looked for often. After
	// that, and after the first connection, they are looked for seldom. Default
	// 2 minutes.
	Watch time.Duration
	// Warn is told what goes wrong; nothing ends by it.
	Warn func(error)
}

// Hybrid listens for the agent of one sandbox where VMMs with hybrid VSOCK
// connect to. Which VMM the sandbox has need not be known: sockets that nobody
// connects to do no harm.
type Hybrid struct {
	sandbox string
	opts    HybridOptions
	handle  Handler
	places  []*place
	pace    pace
	called  chan struct{} // there was a connection
}

// pace is how often directories are looked for.
type pace struct {
	watched time.Duration // beside inotify
	blind   time.Duration // without inotify
	later   time.Duration // when the sandbox has had its time
}

// NewHybrid returns a listener for a sandbox's agent, which Serve runs. It fails
// for a sandbox id or a pattern that makes no path.
func NewHybrid(sandbox string, opts HybridOptions, handle Handler) (*Hybrid, error) {
	if err := checkSandbox(sandbox); err != nil {
		return nil, err
	}
	if opts.Patterns == nil {
		opts.Patterns = DefaultPatterns()
	}
	if opts.Watch <= 0 {
		opts.Watch = 2 * time.Minute
	}
	h := &Hybrid{
		sandbox: sandbox,
		opts:    opts,
		handle:  handle,
		pace:    pace{watched: 2 * time.Second, blind: 250 * time.Millisecond, later: 10 * time.Second},
		called:  make(chan struct{}, 1),
	}
	for _, p := range opts.Patterns {
		path, err := p.listenPath(sandbox)
		if err != nil {
			return nil, err
		}
		h.places = append(h.places, &place{hybrid: h, path: path, report: vmmdir.Reporter{To: opts.Warn}})
	}
	return h, nil
}

// Serve listens until ctx is done, then removes its sockets. Directories may
// come, go and come back meanwhile.
func (h *Hybrid) Serve(ctx context.Context) {
	defer func() {
		for _, p := range h.places {
			p.leave()
		}
	}()
	interval := h.pace.watched
	watch, err := vmmdir.NewWatcher()
	if err != nil {
		interval = h.pace.blind
		if h.opts.Warn != nil {
			h.opts.Warn(err)
		}
	}
	defer watch.Close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	over := time.NewTimer(h.opts.Watch)
	defer over.Stop()
	for {
		for {
			watch.Settle()
			if !watch.Follow(h.tend()) {
				break
			}
		}
		events, lost := watch.Events()
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-lost:
		case <-tick.C:
		case <-h.called:
			watch.Close()
			tick.Reset(h.pace.later)
		case <-over.C:
			watch.Close()
			tick.Reset(h.pace.later)
		}
	}
}

// tend listens wherever that has become possible, and returns the directories
// that are awaited.
func (h *Hybrid) tend() (awaited []string) {
	for _, p := range h.places {
		if !p.tend() {
			awaited = append(awaited, filepath.Dir(p.path))
		}
	}
	return awaited
}

// place is one path to listen at.
type place struct {
	hybrid *Hybrid
	path   string
	report vmmdir.Reporter
	socket *socketFile // nil: not listening
	accept sync.WaitGroup
}

// tend begins to listen if the directory is there, and again if the socket has
// vanished. It reports whether the place listens.
func (p *place) tend() bool {
	if p.socket != nil {
		if p.socket.present() {
			return true
		}
		p.leave()
	}
	s, err := bindSocketFile(p.path, p.hybrid.opts.Users)
	if errors.Is(err, vmmdir.ErrNone) || errors.Is(err, vmmdir.ErrBusy) {
		return false
	}
	p.report.Tell(err)
	if err != nil {
		return false
	}
	p.socket = s
	p.accept.Go(func() { p.hybrid.accept(s) })
	return true
}

func (p *place) leave() {
	if p.socket != nil {
		p.socket.remove()
		p.accept.Wait()
		p.socket = nil
	}
}

// acceptPause is how long to wait when there are no descriptors left.
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
		if err := CheckPeer(conn, s.users...); err != nil {
			report.Tell(&net.OpError{Op: "accept", Net: "unix", Addr: &net.UnixAddr{Name: s.path, Net: "unix"}, Err: err})
			conn.Close()
			continue
		}
		h.handle(conn, Origin{Sandbox: h.sandbox, Path: s.path})
		select {
		case h.called <- struct{}{}:
		default:
		}
	}
}
