package forwarder_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/collate"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// host has what a host has once: the runtimes' endpoint, and the link to the relays.
type host struct {
	dir string // of the link
	url string
}

func newHost(t *testing.T) *host {
	h := &host{dir: filepath.Join(t.TempDir(), "runtimes")}
	if err := route.MakeDir(h.dir); err != nil {
		t.Fatal(err)
	}
	relays, err := route.Listen(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + port.Addr().String() + endpoint.Path
	var posts *endpoint.Endpoint
	router := route.NewRouter(route.RouterOptions{Settle: func(ctx context.Context) { _ = posts.Flush(ctx) }})
	posts = endpoint.New(router.Take, endpoint.Options{})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	guarded, err := router.Admit(port.(*net.TCPListener))
	if err != nil {
		t.Fatal(err)
	}
	running.Go(func() { _ = posts.Serve(guarded) })
	running.Go(func() { router.Serve(ctx, relays) })
	t.Cleanup(func() {
		stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := posts.Close(ctx); err != nil {
			t.Error(err)
		}
		running.Wait()
		router.Close(ctx)
	})
	return h
}

// podRelay has what a relay has for its sandbox.
type podRelay struct {
	*captured.Pod
	t         *testing.T
	root      trace.SpanContext
	now       atomic.Int64 // the pod's time
	took      atomic.Int64 // runtime's spans
	own       *collate.Collator
	up        atomic.Int64 // the first of the agent's spans, as it is drawn
	connected atomic.Int64 // the end of the runtime's span connect
	// closed ends the Forwarder.
	closed func() error
	link   *route.Link
	// agent is the agent's end of its connection.
	agent net.Conn
	http  *http.Client
	h2    bool
}

// relayOf returns the relay of a pod's sandbox, whose spans go to s.
func (h *host) relayOf(t *testing.T, s *store, pod *captured.Pod, name string) *podRelay {
	h2 := name == captured.Rust
	p := &podRelay{Pod: pod, t: t, h2: h2}
	p.root = trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID([]byte(name + name)[:16]), SpanID: trace.SpanID{0: 0xA0, 7: byte(len(name))}, TraceFlags: trace.FlagsSampled,
	})
	resource := func(service string) *resourcepb.Resource {
		return &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			{Key: "vm", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: pod.Sandbox}}},
			{Key: "service.name", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: service}}},
		}}
	}
	r, closed := start(t, s, forwarder.Options{Collation: func(listen.Origin) collate.Options {
		quiet := []string{"State", "Stats", "Pids", "Connect", "Wait"}
		spans := []string{"AddEndpoints"}
		for _, request := range append(calls.QuietRequests(quiet), "ReadStdout", "ReadStderr", "WaitProcess", "Check") {
			spans = append(spans, "ttrpc."+request)
		}
		return collate.Options{
			Options: calls.Options{
				Root: p.root, Quiet: quiet, QuietSpans: spans, Slow: 500 * time.Millisecond,
				Now: func() time.Time { return time.Unix(0, p.now.Load()) },
			},
			Resource: resource("kata-agent"), Runtime: resource("kata-runtime"),
			Drawn: p.drawn,
		}
	}})
	p.own, p.closed = r.Sandbox(pod.Sandbox), closed

	dir := filepath.Join(testkit.ShortDir(t), "{sandbox}")
	vm := strings.ReplaceAll(dir, "{sandbox}", pod.Sandbox)
	if err := os.Mkdir(vm, 0o700); err != nil {
		t.Fatal(err)
	}
	hybrid, err := listen.NewHybrid(pod.Sandbox, listen.HybridOptions{Patterns: []listen.Pattern{{Path: filepath.Join(dir, "clh.sock")}}}, r.Take)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { hybrid.Serve(ctx) })
	p.link = route.NewLink(route.LinkOptions{Dir: h.dir, Sandbox: pod.Sandbox}, func(span *span.Span) {
		p.own.AddRuntime(span)
		p.took.Add(1)
	})
	running.Go(func() { p.link.Serve(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	p.until("the agent can connect", func() (ok bool) {
		p.agent, err = net.Dial("unix", filepath.Join(vm, "clh.sock_10240"))
		return err == nil
	})

	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetUnencryptedHTTP2(h2)
	transport := &http.Transport{Protocols: protocols}
	p.http = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return p
}

// post posts the runtime's spans.
func (p *podRelay) post(url string, body []byte) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-thrift")
	if p.h2 {
		req.Header.Set("Content-Type", "application/vnd.apache.thrift.binary")
		req.Header.Set("Authorization", "Basic Og==")
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if want := map[bool]int{false: 1, true: 2}[p.h2]; resp.StatusCode/100 != 2 || resp.ProtoMajor != want {
		p.t.Fatalf("posted by HTTP/%d: %s", resp.ProtoMajor, resp.Status)
	}
}

// drawn is told of each span, with its times on the host's clock.
func (p *podRelay) drawn(name string, guest bool, start, end time.Time) {
	if at := p.up.Load(); guest && (at == 0 || start.UnixNano() < at) {
		p.up.Store(start.UnixNano())
	}
	if !guest && name == kata.ConnectSpan {
		p.connected.Store(end.UnixNano())
	}
}

// checkBoot checks what is known of the VM's boot: the agent's first span, and the Go
// runtime's connect, are within the call that makes the VM.
func (p *podRelay) checkBoot(goRuntime bool) {
	p.t.Helper()
	made := p.Calls[0]
	for _, c := range p.Calls {
		if c.Method == "Create" && (made.Method != "Create" || c.Start.Before(made.Start)) {
			made = c
		}
	}
	within := func(at int64) bool { return at >= made.Start.UnixNano() && at <= made.End.UnixNano() }
	if at := p.up.Load(); !within(at) {
		p.t.Errorf("the agent's first span begins at %d, which is not within the first Create, %d to %d", at, made.Start.UnixNano(), made.End.UnixNano())
	}
	if at := p.connected.Load(); within(at) != goRuntime {
		p.t.Errorf("the runtime has connected at %d, the first Create is from %d to %d", at, made.Start.UnixNano(), made.End.UnixNano())
	}
}

// context returns the context of a call's span.
func (p *podRelay) context(call int) trace.SpanContext {
	id := p.root.SpanID()
	binary.BigEndian.PutUint16(id[1:], uint16(call+1))
	return p.root.WithSpanID(id)
}

// live replays the pod's life: everything arrives in its original form, at its own time.
func (p *podRelay) live(url string) {
	type event struct {
		at int64
		do func()
	}
	var events []event
	for i, c := range p.Calls {
		begun := calls.Call{Method: c.Method, ContainerID: c.ContainerID, ExecID: c.ExecID, Start: c.Start, SpanContext: p.context(i)}
		ended := begun
		ended.End = c.End
		events = append(events,
			event{c.Start.UnixNano(), func() { p.own.Call(begun) }},
			event{c.End.UnixNano(), func() { p.own.Call(ended) }})
	}
	var at, arrived int64
	for i, post := range p.Runtime {
		for _, s := range post {
			at = max(at, int64(s.End)+int64(time.Millisecond))
		}
		events = append(events, event{at, func() {
			p.post(url, p.Bodies[i])
			arrived += int64(len(post))
			p.until("the runtime's spans arrive", func() bool { return p.took.Load() == arrived })
		}})
	}
	at = 0
	frames := p.Frames
	for _, s := range p.Agent {
		n := 8 + int(binary.BigEndian.Uint64(frames))
		frame := frames[:n]
		frames = frames[n:]
		at = max(at, int64(s.End)+int64(2500*time.Millisecond))
		events = append(events, event{at, func() {
			if _, err := p.agent.Write(frame); err != nil {
				p.t.Fatal(err)
			}
		}})
	}
	slices.SortStableFunc(events, func(x, y event) int { return int(x.at - y.at) })
	for _, e := range events {
		p.now.Store(e.at)
		e.do()
	}
	p.agent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	p.link.Leave(ctx)
}

func (p *podRelay) until(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("it did not come to that: %s (%d)", what, p.took.Load())
		}
	}
}

// TestPods replays captured pods of both runtimes concurrently, over their original wire
// formats: each becomes one trace of its own.
func TestPods(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{captured.Go, captured.Rust} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore()
			p := h.relayOf(t, s, captured.Load(t, name), name)
			p.live(h.url)
			if err := p.closed(); err != nil {
				t.Error(err)
			}
			var calls [][8]byte
			for i := range p.Calls {
				calls = append(calls, p.context(i).SpanID())
			}
			p.checkBoot(name == captured.Go)
			p.Check(t, p.root.TraceID(), p.root.SpanID(), calls, s.of(p.Sandbox))
			if len(s.losses.Counts()) != 0 {
				t.Errorf("lost: %v", s.losses.Counts())
			}
		})
	}
}
