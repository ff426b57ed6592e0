package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"

	"github.com/shimtrace/shimtrace/internal/forwarder/post"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Endpoint serves what Kata's runtimes take for a Jaeger collector. Close ends it.
type Endpoint struct {
	opts    Options
	sink    Sink
	server  *http.Server
	queue   *queue
	span    atomic.Pointer[span.Options] // for the decoder to switch to; nil: no change
	decoded chan struct{}                // closed when decode has returned
	reports post.Reports
}

// New returns an Endpoint that passes spans to sink.
func New(sink Sink, opts Options) *Endpoint {
	e := &Endpoint{opts: opts.withDefaults(), sink: sink, decoded: make(chan struct{})}
	e.reports.To = e.opts.Report
	e.queue = newQueue(e.opts.QueuedBodies, e.opts.QueuedBytes, e.opts.Pending)
	e.server = post.NewServer(http.HandlerFunc(e.serve), e.opts.ReadTimeout)
	e.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, addrPort(c.RemoteAddr()))
	}
	go e.decode()
	return e
}

// peerKey is the context key of a connection's remote address.
type peerKey struct{}

// addrPort returns a TCP address as an AddrPort, the zero one for other networks.
func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Serve serves connections of l until Close, then returns nil. It closes l. An Endpoint
// may serve several listeners.
func (e *Endpoint) Serve(l net.Listener) error {
	if err := e.server.Serve(post.Limited(l, e.opts.MaxConnections, &e.opts.Counters.TurnedAway)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve runtimes on %s: %w", l.Addr(), err)
	}
	return nil
}

// SetSpan replaces Options.Span for requests that are decoded from now on.
func (e *Endpoint) SetSpan(o span.Options) { e.span.Store(&o) }

// Flush waits until the Sink has the spans of all requests answered before the call.
// The error is ctx's.
func (e *Endpoint) Flush(ctx context.Context) error {
	select {
	case <-e.queue.handled():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush runtimes' spans: %w", context.Cause(ctx))
	}
}

// Waiting returns how many answered requests the Sink has not got yet.
func (e *Endpoint) Waiting() int {
	e.queue.mu.Lock()
	defer e.queue.mu.Unlock()
	return int(e.queue.in - e.queue.out)
}

// Close takes no more requests, finishes those under way, and waits until the Sink has
// their spans. If ctx ends first, Close closes the connections and returns ctx's error;
// queued bodies are still decoded, but not waited for.
func (e *Endpoint) Close(ctx context.Context) error {
	err := e.server.Shutdown(ctx)
	if err != nil {
		e.server.Close()
	}
	e.queue.close()
	select {
	case <-e.decoded:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("close the endpoint of runtimes: %w", err)
	}
	return nil
}

// decode decodes queued bodies for as long as the Endpoint lives.
func (e *Endpoint) decode() {
	defer close(e.decoded)
	d := NewDecoder(e.opts)
	for p := range e.queue.posts {
		if o := e.span.Swap(nil); o != nil {
			d.SetSpan(*o)
		}
		e.deliver(d, p)
		e.queue.done(p)
	}
}

func (e *Endpoint) deliver(d *decoder, p answered) {
	service, spans, err := d.Decode(p.body)
	if err != nil {
		e.reports.Tell(losses.MalformedPost, err)
		return
	}
	if len(spans) > 0 {
		e.sink(p.peer, service, spans)
	}
}

// lose counts a loss and reports the first of its kind.
func (e *Endpoint) lose(reason losses.Reason, err error) {
	e.opts.Counters.Losses.Add(reason, 1)
	e.reports.Tell(reason, err)
}
