package middleware

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Relay forwards ttrpc connections frame by frame and makes a span of each call
// that passes. It serves any number of connections at once; each has one
// connection of its own to the other side, with the same stream ids.
//
// Whatever it does not understand it forwards as it came, and it never originates
// a frame. An error or panic in tracing costs the span.
type Relay struct {
	spans *spans
}

// NewRelay returns a relay.
func NewRelay(opts ...Option) *Relay {
	return &Relay{spans: newSpans(trace.SpanKindServer, opts)}
}

// DialFunc opens a connection to the side that is relayed to.
type DialFunc func(context.Context) (net.Conn, error)

// Serve accepts connections from l and relays each to one that dial opens, until
// l is closed, and returns when the last connection has ended. A connection for
// which dial fails is closed. It returns nil when l was closed.
func (r *Relay) Serve(ctx context.Context, l net.Listener, dial DialFunc) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors or memory, most likely: the relay must live on.
			r.spans.onError(fmt.Errorf("relay accept: %w", err))
			select {
			case <-time.After(100 * time.Millisecond):
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		conns.Go(func() {
			server, err := dial(ctx)
			if err != nil {
				client.Close()
				r.spans.onError(fmt.Errorf("relay dial: %w", err))
				return
			}
			r.Connect(client, server)
		})
	}
}

// Connect relays between the connection of a client and one to its server, and
// returns when both have ended; it closes both. The end of one direction is
// passed on as such, so that each side sees what it would see of the other.
func (r *Relay) Connect(client, server net.Conn) {
	c := &conn{spans: r.spans, client: client, server: server}
	var wg sync.WaitGroup
	wg.Go(func() { c.finish(c.forwardRequests(), client, server) })
	wg.Go(func() { c.finish(c.forwardAnswers(), server, client) })
	wg.Wait()
	client.Close()
	server.Close()
	c.calls.end(r.spans, time.Now())
}

// conn is a relayed connection.
type conn struct {
	*spans
	client, server net.Conn
	calls          calls
	panics         panics
}

// errWrite marks an error of the side that is written to: the other side cannot
// be heard any more.
var errWrite = errors.New("write")

// finish ends one direction: its reader came to an end, which the other side is
// told; or its writer is gone, and with it the connection.
func (c *conn) finish(err error, from, to net.Conn) {
	if errors.Is(err, errWrite) {
		from.Close()
		to.Close()
		return
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	to.Close()
}

// writer marks the errors of writes.
type writer struct{ net.Conn }

func (w writer) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err != nil {
		err = fmt.Errorf("%w: %w", errWrite, err)
	}
	return n, err
}
