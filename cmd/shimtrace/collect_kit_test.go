package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	identity "github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// pod is what a real pod's runtime posted, in order.
type pod struct {
	sandbox string
	service string
	http2   bool
	bodies  [][]byte
	spans   []trace.SpanID // the expected ones
}

// The captured pods. The Go runtime has its sandbox's id in some spans, runtime-rs its
// first characters in the service name.
var (
	goPod   = source{captured.Go, false}
	rustPod = source{captured.Rust, true}
)

type source struct {
	name  string
	http2 bool
}

func load(t testing.TB, pods ...source) (all []*pod) {
	t.Helper()
	for _, of := range pods {
		all = append(all, of.read(t))
	}
	return all
}

func (of source) read(t testing.TB) *pod {
	t.Helper()
	p := &pod{http2: of.http2, bodies: captured.Posts(t, of.name)}
	d := endpoint.NewDecoder(endpoint.Options{})
	for _, body := range p.bodies {
		service, spans, err := d.Decode(body)
		testkit.Check(t, err)
		p.service = service
		for _, s := range spans {
			p.spans = append(p.spans, s.SpanID)
			if s.Sandbox != "" {
				p.sandbox = s.Sandbox
			}
		}
	}
	if p.sandbox == "" {
		p.sandbox = p.service[len("kata-sb-"):] + "0123456789"
	}
	return p
}

// post posts a body, as the pod's runtime does.
func (p *pod) post(client *http.Client, endpoint string, body []byte) error {
	media := "application/x-thrift"
	if p.http2 {
		media = "application/vnd.apache.thrift.binary"
	}
	answer, err := client.Post(endpoint, media, bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	if answer.StatusCode != http.StatusAccepted {
		return fmt.Errorf("answered %s", answer.Status)
	}
	return nil
}

// client returns a client like the pod's runtime, with one connection.
func (p *pod) client(t testing.TB) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!p.http2)
	protocols.SetUnencryptedHTTP2(p.http2)
	transport := &http.Transport{Protocols: protocols}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: forwardPatience}
}

// postAll posts all of the pod's bodies, one after another.
func (p *pod) postAll(t *testing.T, endpoint string) {
	client := p.client(t)
	for i, body := range p.bodies {
		if err := p.post(client, endpoint, body); err != nil {
			t.Errorf("post %d of %s: %v", i, p.service, err)
			return
		}
	}
}

// fakeRelay is a relay's end of the link.
type fakeRelay struct {
	losses losses.Tally
	*route.Link

	mu    sync.Mutex
	spans []trace.SpanID
	stall chan struct{} // not nil: spans wait until it is closed
}

// linkRelay connects a relay to the endpoint of a state directory.
func linkRelay(t *testing.T, state, sandbox string, ensure func(), pids ...int) *fakeRelay {
	t.Helper()
	f := new(fakeRelay)
	f.Link = route.NewLink(route.LinkOptions{
		Dir: filepath.Join(state, "collect"), Sandbox: sandbox, Ensure: ensure,
		Losses: &f.losses,
		Warn:   func(err error) { t.Logf("%s: %v", sandbox, err) },
	}, f.take)
	var named []identity.Process
	for _, pid := range pids {
		p, err := identity.Proc("/proc").Process(pid)
		if err != nil {
			t.Fatal(err)
		}
		named = append(named, p)
	}
	f.Processes(named...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Serve(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

func (f *fakeRelay) take(s *span.Span) {
	f.mu.Lock()
	stall := f.stall
	f.mu.Unlock()
	if stall != nil {
		<-stall
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spans = append(f.spans, s.SpanID)
}

func (f *fakeRelay) got() []trace.SpanID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]trace.SpanID(nil), f.spans...)
}

// leave ends the link like a relay whose runtime has ended.
func (f *fakeRelay) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), forwardPatience)
	defer cancel()
	f.Leave(ctx)
}

// gets fails unless the relay got exactly these spans, in this order.
func (f *fakeRelay) gets(t *testing.T, want []trace.SpanID) {
	t.Helper()
	got := f.got()
	if len(got) != len(want) {
		t.Errorf("%d spans arrived, want %d", len(got), len(want))
		return
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("span %d is %s, want %s", i, got[i], want[i])
			return
		}
	}
}

// arrives waits until the relay has as many spans as these, and fails unless it has exactly
// these. A relay that leaves waits for no more than two seconds.
func (f *fakeRelay) arrives(t *testing.T, want []trace.SpanID) {
	t.Helper()
	eventually(t, "the spans arrive", func() bool { return len(f.got()) >= len(want) })
	f.gets(t, want)
}

// receiveConfig returns a configuration with its own directories and port.
func receiveConfig(t *testing.T) (config, state, at string) {
	t.Helper()
	at = testkit.FreePort(t)
	state = testkit.ShortDir(t)
	return fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[jaeger]\nreceive = \"on\"\nlisten = %q\n", state, filepath.Join(state, "journal"), at), state, at
}

// receiving is a running shimtrace collect.
type receiving struct {
	*forwardProcess
	state, at, url string
}

func startReceive(t *testing.T, args ...string) *receiving {
	t.Helper()
	config, state, at := receiveConfig(t)
	r := &receiving{newTool(t, config, append([]string{"collect"}, args...)...), state, at, "http://" + at + endpoint.Path}
	r.start()
	r.says("runtimes may post to " + r.url)
	return r
}

// relay connects a relay. Posts before the endpoint knows it are held.
func (r *receiving) relay(t *testing.T, sandbox string, pids ...int) *fakeRelay {
	t.Helper()
	return linkRelay(t, r.state, sandbox, func() {}, pids...)
}

// drops returns the losses in the journal.
func drops(t *testing.T, state string) map[string]int {
	t.Helper()
	all := make(map[string]int)
	_, err := journal.Scan(filepath.Join(state, "journal"), func(rec journal.Record) error {
		if rec.Kind != journal.KindDrops {
			return nil
		}
		d, err := rec.Drops()
		for reason, n := range d {
			all[reason] += n
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
