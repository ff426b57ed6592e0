package route

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
)

// RouterOptions bound what a Router may keep. The zero value means the defaults
// named at each field.
type RouterOptions struct {
	// Hold is how long spans wait to be known of which sandbox they are. Default 5 s:
	// the Go runtime says it within 50 ms, and a relay is there before its runtime.
	Hold time.Duration
	// HeldBytes bounds what waits so. Default: package defaults.
	HeldBytes int
	// QueuedBytes bounds what waits for each relay. Default 4 MiB.
	QueuedBytes int
	// Settle returns when all that had been answered, when it was called, has been
	// given to Take, or ctx is done. nil: Take is called before the answer.
	Settle func(ctx context.Context)
	// Losses counts spans that are lost; nil: only Snapshot does.
	Losses *losses.Tally
	// Pending has added to it the spans that have arrived and are neither sent nor lost,
	// nil: nobody asks.
	Pending *atomic.Int64
	// Warn is told what goes wrong, once a minute for each cause; nothing ends by it.
	Warn func(error)

	proc     procFS // tests have others
	diagnose func(from, to netip.AddrPort) (socket, error)
}

// Router is the endpoint's side of the relays' links. It is safe for concurrent use.
type Router struct {
	opts    RouterOptions
	proc    procFS
	diag    diagnoser
	sockets sockets
	lines   loglimit.Limiter
	work    sync.WaitGroup
	counts

	mu      sync.Mutex
	closed  bool
	links   []*relay            // all, the oldest first
	relays  map[*relay]bool     // those that spans may go to
	sandbox map[string][]*relay // by the sandbox's id, the latest last
	service map[string][]*relay // by the service's name
	traces  map[traceID]teaching
	peers   map[netip.AddrPort]*peer // with open connections
	gone    gonePeers
	held    held
}

type traceID = [16]byte

// NewRouter returns a Router.
func NewRouter(opts RouterOptions) *Router {
	if opts.Hold <= 0 {
		opts.Hold = 5 * time.Second
	}
	if opts.HeldBytes <= 0 {
		opts.HeldBytes = defaults.JaegerHeld
	}
	if opts.QueuedBytes <= 0 {
		opts.QueuedBytes = 4 << 20
	}
	if opts.Settle == nil {
		opts.Settle = func(context.Context) {}
	}
	if opts.Warn == nil {
		opts.Warn = func(error) {}
	}
	if opts.Pending == nil {
		opts.Pending = new(atomic.Int64)
	}
	if opts.proc == "" {
		opts.proc = "/proc"
	}
	r := &Router{
		opts:    opts,
		proc:    opts.proc,
		counts:  counts{losses: losses.New(opts.Losses), pending: opts.Pending, turned: make(map[string]uint64)},
		relays:  make(map[*relay]bool),
		sandbox: make(map[string][]*relay),
		service: make(map[string][]*relay),
		traces:  make(map[traceID]teaching),
		peers:   make(map[netip.AddrPort]*peer),
	}
	r.sockets = sockets{proc: r.proc, diagnose: opts.diagnose, warn: r.warnOfLooking()}
	if r.sockets.diagnose == nil {
		r.sockets.diagnose = r.diag.ask
	}
	return r
}

// Listen opens the socket that relays connect to, in a directory that is closed to
// others. The caller holds the lock at LockPath, so that what is there already has
// been left by a process that ended.
func Listen(dir string) (*host.Listener, error) {
	l, err := host.ListenUnix("unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("relays' link: %w", err)
	}
	return l, nil
}

// MakeDir makes the directory that relays and their endpoint share, for us only.
func MakeDir(dir string) error {
	if err := private.MakeDir(dir); err != nil {
		return fmt.Errorf("directory of the runtimes' endpoint: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return fmt.Errorf("directory of the runtimes' endpoint: %s: %w", dir, err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o077 != 0 {
		return fmt.Errorf("directory of the runtimes' endpoint: %s is not closed to others: remove it, or chmod it to 0700", dir)
	}
	return nil
}

const (
	// maxRelays bounds the relays of a host.
	maxRelays = 4096
	// acceptPause is how long to wait when relays cannot be accepted.
	acceptPause = 100 * time.Millisecond
	// tick is how often spans that wait are looked at.
	tick = 250 * time.Millisecond
)

// Serve admits relays until ctx is done, and sees to spans that wait. Close comes after
// it.
func (r *Router) Serve(ctx context.Context, relays *host.Listener) {
	stop := context.AfterFunc(ctx, func() { relays.Close() })
	defer stop()
	var admitting sync.WaitGroup
	admitting.Go(func() { r.admit(relays) })
	defer admitting.Wait()
	defer relays.Remove()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			r.expire(now)
		}
	}
}

func (r *Router) admit(relays *host.Listener) {
	for {
		conn, err := relays.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			if err = host.CheckPeer(conn, uint32(os.Geteuid())); err != nil {
				conn.Close()
			}
		}
		if err != nil {
			r.warn(fmt.Errorf("relays' link: %w", err))
			time.Sleep(acceptPause)
			continue
		}
		r.welcome(conn)
	}
}

func (r *Router) welcome(conn *net.UnixConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || len(r.links) >= maxRelays {
		conn.Close()
		return
	}
	c := newRelay(r, conn)
	r.links = append(r.links, c)
	r.relays[c] = true
	r.work.Go(c.read)
	r.work.Go(c.write)
}

// dismiss forgets a relay; one that lives comes back.
func (r *Router) dismiss(c *relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retire(c)
	r.links = slices.DeleteFunc(r.links, func(o *relay) bool { return o == c })
}

// retire lets no more spans go to a relay: those of a sandbox that comes back under
// its name wait for the next one. The caller holds the lock.
func (r *Router) retire(c *relay) {
	delete(r.relays, c)
	r.unlist(c)
	for _, id := range c.traces {
		if r.traces[id].relay == c {
			delete(r.traces, id)
		}
	}
	release(c.processes)
	c.processes = nil
}

// relaysInOrder returns the relays, the latest first: a process that has connected
// is most likely that of a sandbox that has just begun. The caller holds the lock.
func (r *Router) relaysInOrder() []*relay {
	all := slices.Clone(r.links)
	slices.Reverse(all)
	return all
}

// Close ends the links, once what is queued has been sent or ctx is done. Take has
// been called for the last time, and Serve has returned, before.
func (r *Router) Close(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	for _, b := range r.held.batches {
		r.lose(losses.UnknownSandbox, b.spans)
	}
	r.held = held{}
	all := slices.Clone(r.links)
	for _, c := range all {
		c.hangUp()
	}
	r.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		for _, c := range all {
			c.conn.Close()
		}
	})
	defer stop()
	r.work.Wait()
	r.diag.close()
}

// Snapshot returns the counts; it may be called at any time, also after Close.
func (r *Router) Snapshot() Snapshot {
	s := r.counts.snapshot()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Relays = len(r.links)
	for _, b := range r.held.batches {
		s.Held += b.spans
	}
	for _, c := range r.links {
		s.Queued += c.waiting
	}
	return s
}

// Take takes the spans of one post. service is the name that the process gives
// itself. It does not keep the spans.
func (r *Router) Take(from netip.AddrPort, service string, spans []span.Span) {
	r.mu.Lock()
	p := r.peer(unmap(from))
	r.mu.Unlock()
	r.arrive(len(spans))
	if p != nil {
		<-p.looked
	}
	b := r.newBatch(p, service, spans)
	if b.spans == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.place(b)
}

// warnOfLooking tells that looking for sockets takes the long way: why is said once,
// if that is so for good.
func (r *Router) warnOfLooking() func(error) {
	var once sync.Once
	return func(err error) {
		if errors.Is(err, errNoDiag) {
			once.Do(func() { r.opts.Warn(err) })
			return
		}
		r.warn(err)
	}
}

// warn tells an error, the same one once a minute.
func (r *Router) warn(err error) {
	swallowed, ok := r.lines.Allow("", err.Error())
	switch {
	case !ok:
	case swallowed > 0:
		r.opts.Warn(fmt.Errorf("%w (and %d times before)", err, swallowed))
	default:
		r.opts.Warn(err)
	}
}
