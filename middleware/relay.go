package middleware

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
)

// Relay forwards ttrpc connections frame by frame and makes a span of each call
// that passes. It serves any number of connections at once; each has one
// connection of its own to the other side, with the same stream ids.
//
// Whatever it does not understand it forwards as it came, and it never originates
// a frame. An error or panic in tracing costs the span.
type Relay struct {
	spans *spans
	conns conns
}

// NewRelay returns a relay.
func NewRelay(opts ...Option) *Relay {
	return &Relay{spans: newSpans(trace.SpanKindServer, opts)}
}

// DialFunc opens a connection to the side that is relayed to.
type DialFunc func(context.Context) (net.Conn, error)

// Serve accepts connections from l and relays each to one that dial opens, until
// l is closed, and returns when the last connection has ended. A connection for
// which dial fails is closed. It returns nil when l was closed. ctx is dial's: its
// end neither closes l nor the connections, but Serve does not retry an accept
// that fails after it, and returns its error.
func (r *Relay) Serve(ctx context.Context, l net.Listener, dial DialFunc) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	return host.AcceptAll(ctx, l.Accept, func(client net.Conn) {
		conns.Go(func() {
			server, err := dial(ctx)
			if err != nil {
				client.Close()
				r.spans.report(fmt.Errorf("relay dial: %w", err))
				return
			}
			r.Connect(client, server)
		})
	}, func(err error) { r.spans.report(fmt.Errorf("relay accept: %w", err)) })
}

// Connect relays between the connection of a client and one to its server, and
// returns when both have ended; it closes both. The end of one direction is
// passed on as such, so that each side sees what it would see of the other.
func (r *Relay) Connect(client, server net.Conn) {
	c := &conn{spans: r.spans, client: client, server: server}
	if ahead, ok := server.(*handover.Ahead); ok {
		c.raw = uint64(ahead.Raw)
	}
	if c.share(&r.conns) {
		return
	}
	r.conns.add(c)
	defer r.conns.remove(c)
	answers := handover.NewStream(server, client)
	answers.Discard(0, handover.Mark{Left: c.raw})
	c.relay(handover.NewStream(client, server), answers)
}

// relay relays until both directions have ended, and reports whether they have: they may
// have been stopped for another process.
func (c *conn) relay(requests, answers *handover.Stream) (ended bool) {
	var wg sync.WaitGroup
	var stopped atomic.Bool
	direction := func(s *handover.Stream, forward func(*handover.Stream) error, side Side, from, to net.Conn) {
		err := forward(s)
		s.Release()
		if errors.Is(err, handover.ErrStopped) {
			stopped.Store(true)
			return
		}
		c.ending.note(side, err)
		c.finish(err, from, to)
	}
	wg.Go(func() { direction(requests, c.forwardRequests, Client, c.client, c.server) })
	wg.Go(func() { direction(answers, c.forwardAnswers, Server, c.server, c.client) })
	wg.Wait()
	if stopped.Load() {
		return false
	}
	c.close(c.client)
	c.close(c.server)
	gone := c.calls.end(time.Now())
	c.lose(gone)
	c.tell(gone)
	return true
}

// conn is a relayed connection.
type conn struct {
	*spans
	client, server net.Conn
	memory         *handover.Memory // nil: it ends with the process
	streams        []*handover.Stream
	raw            uint64 // bytes before the first answer, which pass as they are
	calls          calls
	panics         panics
	ending         ending
}

// lose ends the spans of calls that get no answer.
func (c *conn) lose(calls []lost) {
	for _, l := range calls {
		if c.panics.off() {
			return
		}
		c.guard(func() { c.abandon(l) })
	}
}

// finish ends the direction from → to of a connection for the reason err, in
// such a way that both see what they would see of each other: what one has said
// is heard to its end, also when the other is gone already.
func (c *conn) finish(err error, from, to net.Conn) {
	if !errors.Is(err, errWrite) {
		// from has ended, and to is told so.
		half, ok := to.(interface{ CloseWrite() error })
		if !ok || half.CloseWrite() != nil {
			c.close(to)
		}
		return
	}
	// to does not listen any more: from's writes are to fail as well.
	half, ok := from.(interface{ CloseRead() error })
	if !ok || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || half.CloseRead() != nil {
		c.close(from)
		c.close(to)
	}
}

// close closes one end of the connection. Another process may have its descriptor as well.
func (c *conn) close(end net.Conn) {
	if c.memory != nil {
		handover.ShutDown(end)
	}
	end.Close()
}

// errWrite marks the error of the side that is written to.
var errWrite = errors.New("write")

func markWrite(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", errWrite, err)
	}
	return err
}
