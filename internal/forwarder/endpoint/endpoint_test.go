package endpoint

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// The captures, posted as they were.
func TestCapturesOverHTTP(t *testing.T) {
	for _, tc := range []struct {
		capture, contentType, service string
		version, deliveries, spans    int
	}{
		{captureGo, typeGo, "kata", 1, 349, 349},
		{captureRust, typeRust, "kata-sb-c58a3c91", 2, 7, 229}, // one body has only spans of the exporter
	} {
		t.Run(tc.capture, func(t *testing.T) {
			var got sunk
			e := serve(t, got.sink, Options{})
			c := client(t, tc.version)
			for i, body := range bodies(t, tc.capture) {
				if status, text := posted(t, c, e.url, tc.contentType, body, "Authorization", "Basic Og=="); status != http.StatusAccepted {
					t.Fatalf("body %d: %d %s", i, status, text)
				}
			}
			e.flush(t)
			_, want := decodeAll(t, tc.capture, Options{})
			spans := 0
			all := got.deliveries()
			peer := all[0].peer
			for _, d := range all {
				if d.service != tc.service || d.peer != peer || !d.peer.Addr().IsLoopback() || d.peer.Port() == 0 {
					t.Fatalf("%s from %s, want %s from %s", d.service, d.peer, tc.service, peer)
				}
				for i := range d.spans {
					if !bytes.Equal(d.spans[i].Append(nil), want[spans].Append(nil)) {
						t.Fatalf("span %d is another", spans)
					}
					spans++
				}
			}
			if len(all) != tc.deliveries || spans != tc.spans {
				t.Errorf("%d deliveries, %d spans", len(all), spans)
			}
			if n := e.accepted.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// Several runtimes at once: each one's spans stay in order.
func TestConcurrentRuntimes(t *testing.T) {
	var got sunk
	e := serve(t, got.sink, Options{})
	const runtimes, posts = 12, 60
	var wg sync.WaitGroup
	for r := range runtimes {
		wg.Go(func() {
			c := client(t, 1+r%2)
			for n := range posts {
				body := batch(fmt.Sprintf("kata-sb-%d", r), plainSpan(fmt.Sprintf("%d", n)))
				if status, text := posted(t, c, e.url, typeGo, body); status != http.StatusAccepted {
					t.Errorf("%d %s", status, text)
					return
				}
			}
		})
	}
	wg.Wait()
	e.flush(t)
	next := map[string]int{}
	for _, d := range got.deliveries() {
		if d.spans[0].Name != fmt.Sprint(next[d.service]) {
			t.Fatalf("%s: span %s comes as %d", d.service, d.spans[0].Name, next[d.service])
		}
		next[d.service]++
	}
	for r := range runtimes {
		if n := next[fmt.Sprintf("kata-sb-%d", r)]; n != posts {
			t.Errorf("runtime %d: %d spans", r, n)
		}
	}
}

// A blocked Sink is not waited for: requests beyond the queue are refused at once.
func TestAnswersWithoutTheSink(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts Options
	}{
		{"as many as wait", Options{QueuedBodies: 5}},
		{"as many bytes as wait", Options{MaxBody: 1 << 10, QueuedBytes: 3 << 10}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got sunk
			free := make(chan struct{})
			var reports atomic.Int32
			tc.opts.Report = func(r losses.Reason, err error) {
				if r == losses.BusyPost && strings.Contains(err.Error(), "than there is room for") {
					reports.Add(1)
				}
			}
			e := serve(t, func(peer netip.AddrPort, service string, spans []span.Span) {
				<-free
				got.sink(peer, service, spans)
			}, tc.opts)
			c := client(t, 1)
			body := batch("kata", plainSpan("n"))
			taken, busy := 0, 0
			for range 40 {
				switch status, text := posted(t, c, e.url, typeGo, body); status {
				case http.StatusAccepted:
					taken++
				case http.StatusServiceUnavailable:
					busy++
				default:
					t.Fatalf("%d %s", status, text)
				}
			}
			if taken == 0 || busy == 0 || busy != 40-taken || e.counters.Losses.Of(losses.BusyPost) != uint64(busy) || reports.Load() != 1 {
				t.Errorf("%d taken, %d busy, %d counted, %d reports", taken, busy, e.counters.Losses.Of(losses.BusyPost), reports.Load())
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if err := e.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("flush: %v", err)
			}
			close(free)
			e.flush(t)
			if n := len(got.deliveries()); n != taken {
				t.Errorf("%d were taken, %d came", taken, n)
			}
			if status, _ := posted(t, c, e.url, typeGo, body); status != http.StatusAccepted {
				t.Errorf("afterwards: %d", status)
			}
		})
	}
}

// Close delivers all that was answered.
func TestCloseDelivers(t *testing.T) {
	var got sunk
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := New(func(peer netip.AddrPort, service string, spans []span.Span) {
		time.Sleep(time.Millisecond)
		got.sink(peer, service, spans)
	}, Options{})
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(l) }()
	c := client(t, 2)
	for range 100 {
		posted(t, c, "http://"+l.Addr().String()+Path, typeRust, batch("kata", plainSpan("n")))
	}
	if err := e.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(got.deliveries()); n != 100 {
		t.Errorf("%d of 100", n)
	}
	if err := e.Close(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestWhatIsRefused(t *testing.T) {
	var got sunk
	var reports sync.Map
	e := serve(t, got.sink, Options{MaxBody: 4 << 10, Report: func(r losses.Reason, err error) {
		if _, again := reports.LoadOrStore(r, err); again {
			t.Errorf("%s reported again", r)
		}
	}})
	good := batch("kata", plainSpan("n"))
	long := batch("kata", plainSpan(strings.Repeat("n", 5<<10)))
	zip := func(b []byte) []byte {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		w.Write(b)
		w.Close()
		return z.Bytes()
	}
	for _, tc := range []struct {
		name         string
		method, path string
		header       []string
		body         []byte
		status       int
		text         string
		reason       losses.Reason
	}{
		{name: "whole", body: good, status: 202},
		{name: "Rust's type", header: []string{"Content-Type", typeRust}, body: good, status: 202},
		{name: "with a charset", header: []string{"Content-Type", typeGo + "; charset=x"}, body: good, status: 202},
		{name: "gzip", header: []string{"Content-Encoding", "gzip"}, body: zip(good), status: 202},
		{name: "a query", path: Path + "?format=jaeger.thrift", body: good, status: 202},
		{name: "empty", body: nil, status: 202, reason: losses.MalformedPost},
		{name: "malformed", body: []byte("{}"), status: 202, reason: losses.MalformedPost},
		{name: "truncated", body: good[:len(good)-3], status: 202, reason: losses.MalformedPost},
		{name: "oversized", body: long, status: 413, text: "longer than 4096 bytes", reason: losses.OversizedPost},
		{name: "oversized when inflated", header: []string{"Content-Encoding", "gzip"}, body: zip(make([]byte, 4<<20)), status: 413, text: "longer than 4096 bytes", reason: losses.OversizedPost},
		{name: "not gzip", header: []string{"Content-Encoding", "gzip"}, body: good, status: 400, text: "not gzip", reason: losses.MalformedPost},
		{name: "gzip with an error in it", header: []string{"Content-Encoding", "gzip"}, body: append(zip(good)[:20], "garbage garbage garbage"...), status: 400, text: "not gzip", reason: losses.MalformedPost},
		{name: "half gzip", header: []string{"Content-Encoding", "gzip"}, body: zip(good)[:30], status: 400, text: "ended early", reason: losses.CutShortPost},
		{name: "another encoding", header: []string{"Content-Encoding", "br"}, body: good, status: 415, text: "not gzip", reason: losses.RefusedPost},
		{name: "another type", header: []string{"Content-Type", "application/json"}, body: good, status: 415, text: "application/x-thrift", reason: losses.RefusedPost},
		{name: "another path", path: "/", body: good, status: 404, text: "POST /api/traces"},
		{name: "another method", method: "GET", status: 405, text: "shimtrace show"},
	} {
		for version := 1; version <= 2; version++ {
			t.Run(fmt.Sprintf("%s, HTTP/%d", tc.name, version), func(t *testing.T) {
				method, path := tc.method, tc.path
				if method == "" {
					method = http.MethodPost
				}
				if path == "" {
					path = Path
				}
				req, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.address+path, bytes.NewReader(tc.body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", typeGo)
				for i := 0; i < len(tc.header); i += 2 {
					req.Header.Set(tc.header[i], tc.header[i+1])
				}
				before := len(got.deliveries())
				var lost uint64
				if tc.reason != 0 {
					lost = e.counters.Losses.Of(tc.reason)
				}
				resp, err := client(t, version).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var text bytes.Buffer
				text.ReadFrom(resp.Body)
				if resp.StatusCode != tc.status || !strings.Contains(text.String(), tc.text) {
					t.Errorf("%d %s", resp.StatusCode, &text)
				}
				e.flush(t)
				if delivered := len(got.deliveries()) - before; delivered != map[bool]int{true: 1}[tc.status == 202 && tc.reason == 0] {
					t.Errorf("%d deliveries", delivered)
				}
				if tc.reason != 0 && e.counters.Losses.Of(tc.reason) != lost+1 {
					t.Errorf("%s counted %d times", tc.reason, e.counters.Losses.Of(tc.reason)-lost)
				}
			})
		}
	}
	for _, r := range []losses.Reason{losses.MalformedPost, losses.OversizedPost, losses.CutShortPost, losses.RefusedPost} {
		if err, ok := reports.Load(r); !ok || strings.Contains(err.(error).Error(), secret) {
			t.Errorf("%s: reported %v", r, err)
		}
	}
}

// A body without an announced length is bounded all the same.
func TestOversizedWithoutLength(t *testing.T) {
	e := serve(t, new(sunk).sink, Options{MaxBody: 64 << 10})
	for version := 1; version <= 2; version++ {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url, endless{})
		req.Header.Set("Content-Type", typeGo)
		resp, err := client(t, version).Do(req)
		if err == nil { // else the server hung up while we wrote
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Errorf("HTTP/%d: %d", version, resp.StatusCode)
			}
		}
		eventually(t, "the count", func() bool { return e.counters.Losses.Of(losses.OversizedPost) == uint64(version) })
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestSetSpan: what is kept changes while the endpoint serves.
func TestSetSpan(t *testing.T) {
	e := serve(t, new(sunk).sink, Options{Span: span.Options{Keep: []string{}}})
	c := client(t, 2)
	reduced := func() uint64 {
		t.Helper()
		before := e.counters.Attributes.Reduced.Load()
		for _, body := range bodies(t, captureRust) {
			if status, text := posted(t, c, e.url, typeRust, body); status/100 != 2 {
				t.Fatal(status, text)
			}
		}
		e.flush(t)
		return e.counters.Attributes.Reduced.Load() - before
	}
	if reduced() == 0 {
		t.Error("nothing is reduced")
	}
	e.SetSpan(span.Options{Keep: []string{"*"}})
	if n := reduced(); n > 0 {
		t.Errorf("%d attributes are reduced", n)
	}
}
