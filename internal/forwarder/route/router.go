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
	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/private"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// RouterOptions bound what a Router keeps. The zero value means the defaults named at
// each field.
type RouterOptions struct {
	// Hold is how long spans wait for their sandbox to become known. Default 5 s: the
	// Go runtime names it within 50 ms, and a relay starts before its runtime.
	Hold time.Duration
	// HeldBytes bounds these waiting spans. Default: package defaults.
	HeldBytes int
	// QueuedBytes bounds the queue of each relay. Default 4 MiB.
	QueuedBytes int
	// Settle returns when all posts answered before the call have been given to Take,
	// or ctx is done. nil: Take is called before the answer.
	Settle func(ctx context.Context)
	// Losses counts lost spans; nil: only Snapshot does.
	Losses *losses.Tally
	// Pending counts the spans that have arrived and are neither sent nor lost. Default:
	// a new counter.
	Pending *atomic.Int64
	// Warn is told of failures, of each cause once a minute; none of them ends Serve.
	Warn func(error)

	proc     host.Proc // tests set another one
	diagnose func(from, to netip.AddrPort) (socket, error)
}

// Router is the endpoint's side of the relays' links. It is safe for concurrent use.
type Router struct {
	opts    RouterOptions
	diag    diagnoser
	sockets sockets
	lines   loglimit.Limiter
	work    sync.WaitGroup
	counts

	mu      sync.Mutex
	closed  bool
	links   []*relay            // all relays, the oldest first
	relays  map[*relay]bool     // those that still get spans
	sandbox map[string][]*relay // by the sandbox's id, the latest last
	service map[string][]*relay // by the service's name
	traces  map[traceID]teaching
	peers   map[netip.AddrPort]*peer          // with open connections
	gone    recent.Map[netip.AddrPort, *peer] // whose connections have closed
	held    held
}

type traceID = [16]byte

// NewRouter returns a Router. Close ends it.
func NewRouter(opts RouterOptions) *Router {
	defaults.Set(&opts.Hold, 5*time.Second)
	defaults.Set(&opts.HeldBytes, defaults.JaegerHeld)
	defaults.Set(&opts.QueuedBytes, 4<<20)
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
		counts:  counts{losses: losses.New(opts.Losses), pending: opts.Pending, turned: make(map[string]uint64)},
		relays:  make(map[*relay]bool),
		sandbox: make(map[string][]*relay),
		service: make(map[string][]*relay),
		traces:  make(map[traceID]teaching),
		peers:   make(map[netip.AddrPort]*peer),
		gone:    recent.New[netip.AddrPort, *peer](maxGone),
	}
	r.sockets = sockets{proc: opts.proc, diagnose: opts.diagnose, warn: r.warnOfLooking()}
	if r.sockets.diagnose == nil {
		r.sockets.diagnose = r.diag.ask
	}
	return r
}

// Listen opens the socket that relays connect to, in a directory that is closed to
// others. It replaces an old socket: the caller holds the collector's lock, so the
// process that left it has ended.
func Listen(dir string) (*host.Listener, error) {
	l, err := host.ListenUnix("unix", socketPath(dir))
	if err != nil {
		return nil, fmt.Errorf("relays' link: %w", err)
	}
	return l, nil
}

// MakeDir makes the directory that relays and their endpoint share, closed to other
// users.
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
	// acceptPause is the pause after a failed accept.
	acceptPause = 100 * time.Millisecond
	// tick is the pause between looks at held spans.
	tick = 250 * time.Millisecond
)

// Serve accepts relays and expires held spans until ctx is done. Close is called after
// it.
func (r *Router) Serve(ctx context.Context, relays *host.Listener) {
	stop := context.AfterFunc(ctx, func() { relays.Close() })
	defer stop()
	var admitting sync.WaitGroup
	admitting.Go(func() { r.acceptRelays(relays) })
	defer admitting.Wait()
	defer relays.Remove()
	for sleep.For(ctx, tick) {
		r.expire(time.Now())
	}
}

func (r *Router) acceptRelays(relays *host.Listener) {
	_ = host.AcceptAll(context.Background(), func() (*net.UnixConn, error) {
		conn, err := relays.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if err := host.CheckPeer(conn, uint32(os.Geteuid())); err != nil {
			conn.Close()
			return nil, err
		}
		return conn, nil
	}, r.welcome, func(err error) { r.warn(fmt.Errorf("relays' link: %w", err)) })
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

// dismiss forgets a relay; one that lives connects again.
func (r *Router) dismiss(c *relay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retire(c)
	r.links = slices.DeleteFunc(r.links, func(o *relay) bool { return o == c })
}

// retire stops giving spans to a relay: those of a sandbox that restarts with the same
// id wait for its next relay. The caller holds the lock.
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

// relaysInOrder returns the relays, the latest first: a new connection is most likely
// of a sandbox that has just started. The caller holds the lock.
func (r *Router) relaysInOrder() []*relay {
	all := slices.Clone(r.links)
	slices.Reverse(all)
	return all
}

// Close ends the links once the queues have been sent or ctx is done. Before it, Serve
// has returned and Take has been called for the last time.
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

// Snapshot returns the counts. It may be called at any time, even after Close.
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

// Take takes the spans of one post. service is the process's name for itself. Take does
// not keep spans.
func (r *Router) Take(from netip.AddrPort, service string, spans []span.Span) {
	r.mu.Lock()
	p := r.peer(unmap(from))
	r.mu.Unlock()
	r.take(p, service, spans)
}

func (r *Router) take(p *peer, service string, spans []span.Span) {
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
	r.assign(b)
}

// warnOfLooking returns a function that warns when sockets are looked up the slow way:
// once if the kernel cannot do otherwise.
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

// warn passes on an error, the same one at most once a minute.
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
