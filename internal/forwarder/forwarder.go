package forwarder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Forwarder reads agents' connections, places their spans, and hands them to a journal. It is
// safe for concurrent use.
type Forwarder struct {
	opts Options

	closing  chan struct{} // closed when Close waits for nothing new
	abandon  chan struct{} // closed when Close waits for nothing at all
	pumps    sync.WaitGroup
	delivers sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	nextID    uint64
	sandboxes map[sandboxKey]*sandbox
	collators int    // of the sandboxes
	forgotten Counts // of sandboxes no longer in the map
	losses    *losses.Tally

	placed placed

	idle atomic.Bool // Run pauses until there is news
	news chan struct{}
}

// sandboxKey is a sandbox's id, or the CID if the id is unknown.
type sandboxKey struct {
	sandbox string
	cid     uint32
}

func keyOf(from listen.Origin) sandboxKey {
	if from.Sandbox != "" {
		return sandboxKey{sandbox: from.Sandbox}
	}
	return sandboxKey{cid: from.CID}
}

// New returns a Forwarder. Close ends it.
func New(opts Options) *Forwarder {
	var journal *losses.Tally // nil: Sink is set
	if opts.Journal != nil {
		journal = opts.Journal.Losses(losses.Agents)
	}
	return &Forwarder{
		opts:      opts.withDefaults(),
		closing:   make(chan struct{}),
		abandon:   make(chan struct{}),
		news:      make(chan struct{}, 1),
		sandboxes: make(map[sandboxKey]*sandbox),
		forgotten: Counts{Refused: make(map[string]uint64)},
		losses:    losses.New(journal),
	}
}

// SetLimits replaces the limits. A connection that is open keeps to the new ones from its
// next bytes on, but a queue that a sandbox has already keeps its length.
func (f *Forwarder) SetLimits(l Limits) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opts.Limits = l.withDefaults()
	for _, s := range f.sandboxes {
		s.keepTo(f.opts.Limits)
	}
}

var _ listen.Handler = (*Forwarder)(nil).Take

// Take owns a connection and reads it to its end, or closes it at once if a limit forbids it.
// It does not block.
func (f *Forwarder) Take(conn listen.Conn, from listen.Origin) {
	f.mu.Lock()
	c, refused := f.admit(conn, from)
	if refused == reasonConnections {
		c.sandbox.count.refused.Add(1)
	} else if refused != "" {
		put(f.forgotten.Refused, refused, 1)
	}
	f.mu.Unlock()
	if refused != "" {
		conn.Close()
		return
	}
	go func() {
		defer f.pumps.Done()
		c.pump()
	}()
}

// admit registers a connection, or returns why it is refused. If the sandbox has too many
// connections, it returns c all the same.
func (f *Forwarder) admit(conn listen.Conn, from listen.Origin) (c *connection, refused string) {
	if f.closed {
		return nil, reasonClosed
	}
	s := f.share(from)
	if s == nil {
		return nil, reasonSandboxes
	}
	if s.queue == nil {
		s.queue = make(chan item, f.opts.QueuedSpans)
		f.delivers.Go(s.deliver)
	}
	c = &connection{Conn: conn, sandbox: s}
	if len(s.open) >= f.opts.MaxConnections || !s.opens.Allow() {
		return c, reasonConnections
	}
	f.nextID++
	c.info = ConnInfo{ID: f.nextID, Origin: from, Accepted: time.Now()}
	s.open[c] = struct{}{}
	s.count.accepted.Add(1)
	f.pumps.Add(1)
	return c, ""
}

// share returns a sandbox's share, made if needed; nil if there are too many.
func (f *Forwarder) share(from listen.Origin) *sandbox {
	key := keyOf(from)
	s := f.sandboxes[key]
	if s == nil {
		f.forget()
		if len(f.sandboxes) >= f.opts.MaxSandboxes {
			return nil
		}
		s = newSandbox(f, from)
		f.sandboxes[key] = s
	}
	return s
}

// forget removes sandboxes that are over.
func (f *Forwarder) forget() {
	for key, s := range f.sandboxes {
		if s.forgettable() {
			delete(f.sandboxes, key)
			s.closeQueue()
			f.forgotten.add(s.counts())
		}
	}
}

// leave removes a connection from its sandbox.
func (f *Forwarder) leave(c *connection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(c.sandbox.open, c)
	c.sandbox.idle = time.Now()
}

// errClosed is the end of a connection that was still open when the Forwarder was closed: the
// VM may live on.
var errClosed = errors.New("the forwarder was closed")

// lastChance is the time for a Sink to return once Close's time is over.
const lastChance = 50 * time.Millisecond

// Close reads on until every connection ends or is silent, and sends all queued and waiting
// spans. If ctx is done first, the rest is counted as lost and the error says so. Run must have
// returned. Nothing is sent after Close, unless the journal or the Sink did not return.
func (f *Forwarder) Close(ctx context.Context) error {
	err := f.close(ctx)
	if f.opts.Journal != nil {
		f.each((*collate.Collator).Ended)
	}
	return err
}

// close ends the readers and the deliveries.
func (f *Forwarder) close(ctx context.Context) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true
	close(f.closing)
	f.deadline(time.Now().Add(f.opts.Silence))
	f.mu.Unlock()
	stop := context.AfterFunc(ctx, func() {
		close(f.abandon)
		f.mu.Lock()
		defer f.mu.Unlock()
		f.deadline(time.Unix(1, 0))
	})
	defer stop()
	f.pumps.Wait()
	f.mu.Lock()
	for _, s := range f.sandboxes {
		s.closeQueue()
	}
	f.mu.Unlock()

	delivered := make(chan struct{})
	go func() {
		defer close(delivered)
		f.delivers.Wait()
	}()
	select {
	case <-delivered:
	case <-ctx.Done():
		select {
		case <-delivered:
		case <-time.After(lastChance):
			return fmt.Errorf("close the forwarder: its sink does not return: %w", ctx.Err())
		}
	}
	if lost := f.losses.Of(losses.Shutdown); lost > 0 {
		return fmt.Errorf("close the forwarder: %d spans were not delivered in time", lost)
	}
	return nil
}

// deadline ends all current reads at t.
func (f *Forwarder) deadline(t time.Time) {
	for _, s := range f.sandboxes {
		for c := range s.open {
			_ = c.SetReadDeadline(t)
		}
	}
}
