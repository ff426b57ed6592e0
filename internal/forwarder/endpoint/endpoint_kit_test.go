package endpoint

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// delivery is one call of the Sink.
type delivery struct {
	peer    netip.AddrPort
	service string
	spans   []span.Span
}

// sunk collects what a Sink got.
type sunk struct {
	mu  sync.Mutex
	all []delivery
}

func (s *sunk) sink(peer netip.AddrPort, service string, spans []span.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, delivery{peer, service, spans})
}

func (s *sunk) deliveries() []delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]delivery(nil), s.all...)
}

// served is an Endpoint that serves a test.
type served struct {
	*Endpoint
	counters *Counters
	accepted *atomic.Int32 // connections
	url      string
	address  string
}

// serve runs an Endpoint until the test ends, and then sees that it kept no memory.
func serve(t *testing.T, sink Sink, opts Options) *served {
	t.Helper()
	if opts.Counters == nil {
		opts.Counters = &Counters{Losses: new(losses.Tally)}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := New(sink, opts)
	ended, counted := make(chan error, 1), &countedListener{Listener: l}
	go func() { ended <- e.Serve(counted) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if left := e.queue.room.Free(); left != e.opts.QueuedBytes {
			t.Errorf("room for %d bytes of %d", left, e.opts.QueuedBytes)
		}
	})
	return &served{e, opts.Counters, &counted.n, "http://" + l.Addr().String() + Path, l.Addr().String()}
}

// countedListener counts what is accepted.
type countedListener struct {
	net.Listener
	n atomic.Int32
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.Add(1)
	}
	return c, err
}

func (s *served) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Patience)
	defer cancel()
	if err := s.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// client speaks one version of HTTP, as one runtime does: over one connection.
func client(t *testing.T, version int) *http.Client {
	p := new(http.Protocols)
	if version == 2 {
		p.SetUnencryptedHTTP2(true)
	} else {
		p.SetHTTP1(true)
	}
	transport := &http.Transport{Protocols: p, MaxConnsPerHost: 1}
	// A connection that the transport dialed and did not come to use would make the
	// server wait for a request.
	ctx, hangUp := context.WithCancel(context.Background())
	transport.DialContext = func(_ context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			context.AfterFunc(ctx, func() { c.Close() })
		}
		return c, err
	}
	t.Cleanup(func() { hangUp(); transport.CloseIdleConnections() })
	return &http.Client{Transport: transport, Timeout: testkit.Patience}
}

const (
	typeGo   = "application/x-thrift"
	typeRust = "application/vnd.apache.thrift.binary"
)

// posted posts a body and returns the answer's status and text.
func posted(t *testing.T, c *http.Client, url, contentType string, body []byte, more ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

var eventually = testkit.Until
