package runtimetrace

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	rustjaeger "github.com/shimtrace/shimtrace/integration/rust/jaeger"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// postsEndpoint is one of ours, and what came to it.
type postsEndpoint struct {
	*endpoint.Endpoint
	url      string
	counters endpoint.Counters

	mu sync.Mutex
	by map[netip.AddrPort][]posted // by the process that posted
}

type posted struct {
	service string
	span.Span
}

func serve(t *testing.T) *postsEndpoint {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &postsEndpoint{url: "http://" + l.Addr().String() + endpoint.Path, by: make(map[netip.AddrPort][]posted)}
	e.Endpoint = endpoint.New(func(peer netip.AddrPort, service string, spans []span.Span) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, s := range spans {
			e.by[peer] = append(e.by[peer], posted{service, s})
		}
	}, endpoint.Options{Counters: &e.counters, Report: func(r losses.Reason, err error) {
		if r != losses.CutShortPost { // a process that ends while its exporter posts what it traced of itself
			t.Errorf("%s: %v", r, err)
		}
	}})
	ended := make(chan error, 1)
	go func() { ended <- e.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

// posts returns what came from each process.
func (e *postsEndpoint) posts(t *testing.T) map[netip.AddrPort][]posted {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.by
}

// count returns how many spans came of a service.
func (e *postsEndpoint) count(service string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, all := range e.by {
		for _, s := range all {
			if s.service == service {
				n++
			}
		}
	}
	return n
}

// goRuntime makes spans as Kata's Go runtime does and returns their contexts, in the
// order in which they are posted.
func goRuntime(t *testing.T, url string, spans int) (sent []trace.SpanContext) {
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	provider, err := GoRuntime(url, &http.Client{Transport: transport})
	if err != nil {
		t.Error(err)
		return nil
	}
	defer provider.Shutdown(context.Background())
	tracer := provider.Tracer("kata")
	ctx, root := tracer.Start(context.Background(), "rootSpan", trace.WithAttributes(attribute.String("package", "containerdshim")))
	for n := range spans {
		_, span := tracer.Start(ctx, "Start", trace.WithAttributes(
			attribute.String("package", "containerdshim"), attribute.String("source", "runtime"),
			attribute.String("sandbox_id", "7794eff1"), attribute.String("spec", "SECRET=hunter2"), attribute.Int("n", n),
		))
		span.End()
		sent = append(sent, span.SpanContext())
	}
	_, span := tracer.Start(ctx, "ttrpc.StartContainer", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithLinks(trace.Link{SpanContext: root.SpanContext()}))
	span.AddEvent("retry", trace.WithAttributes(attribute.String("spec", "SECRET=hunter2")))
	span.SetStatus(codes.Error, "no such container")
	span.End()
	root.End()
	return append(sent, span.SpanContext(), root.SpanContext())
}

func checkGo(t *testing.T, sent []trace.SpanContext, got []posted) {
	t.Helper()
	if len(sent) != len(got) {
		t.Errorf("%d spans of %d", len(got), len(sent))
		return
	}
	root := sent[len(sent)-1].SpanID()
	for i, s := range got {
		if s.service != "kata" || trace.TraceID(s.TraceID) != sent[i].TraceID() || trace.SpanID(s.SpanID) != sent[i].SpanID() {
			t.Fatalf("span %d of %s: %x %x", i, s.service, s.TraceID, s.SpanID)
		}
		if s.Start == 0 || s.End < s.Start || time.Since(time.Unix(0, int64(s.Start))).Abs() > time.Hour {
			t.Errorf("%s: from %d to %d", s.Name, s.Start, s.End)
		}
		m := new(tracepb.Span)
		if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil {
			t.Fatal(err)
		}
		switch {
		case i < len(sent)-2:
			if s.Name != "Start" || s.Method != "Start" || s.Sandbox != "7794eff1" || trace.SpanID(s.ParentID) != root || m.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
				t.Errorf("got %+v", s)
			}
		case i == len(sent)-2:
			if m.Kind != tracepb.Span_SPAN_KIND_CLIENT || !s.Failed || m.GetStatus().GetMessage() != "no such container" || len(m.Events) != 1 || m.Events[0].Name != "retry" || len(m.Links) != 1 {
				t.Errorf("got %v", m)
			}
		default:
			if s.Name != "rootSpan" || s.Method != "" || s.ParentID != [8]byte{} {
				t.Errorf("got %+v", s)
			}
		}
		noSecret(t, s)
	}
}

func noSecret(t *testing.T, s posted) {
	t.Helper()
	if bytes.Contains(s.Append(nil), []byte("hunter2")) {
		t.Errorf("%s: the secret came out", s.Name)
	}
}

// rustRuntime makes calls as runtime-rs does and returns what it says of its spans, by
// their ids, when they have come.
func rustRuntime(t *testing.T, program string, e *postsEndpoint, sandbox string, calls int) (sent map[string]string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, e.url, sandbox, fmt.Sprint(calls))
	cmd.Env = append(os.Environ(), "OTEL_BSP_SCHEDULE_DELAY=50")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	end, err := cmd.StdinPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	defer end.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	sent = make(map[string]string)
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "done" {
		traceID, rest, _ := strings.Cut(lines.Text(), " ")
		spanID, name, _ := strings.Cut(rest, " ")
		sent[traceID+spanID] = name
	}
	for e.count("kata-sb-"+sandbox[:8]) < len(sent) {
		select {
		case <-ctx.Done():
			t.Errorf("%d spans of %d came: %v\n%s", e.count("kata-sb-"+sandbox[:8]), len(sent), ctx.Err(), &stderr)
			return sent
		case <-time.After(10 * time.Millisecond):
		}
	}
	end.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", program, err, &stderr)
	}
	return sent
}

func checkRust(t *testing.T, sandbox string, sent map[string]string, got []posted) {
	t.Helper()
	counts := map[string]int{}
	for _, s := range got {
		id := fmt.Sprintf("%x%x", s.TraceID, s.SpanID)
		name, own := sent[id]
		if !own || name != s.Name || s.service != "kata-sb-"+sandbox[:8] {
			t.Errorf("%s of %s was not sent as %q", s.Name, s.service, name)
		}
		delete(sent, id)
		counts[s.Name]++
		m := new(tracepb.Span)
		if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil {
			t.Fatal(err)
		}
		switch s.Name {
		case "handler_task_message", "handler_task_request":
			if s.ContainerID != sandbox || (s.Method == "Start") != strings.HasPrefix(s.ExecID, "exec-") || s.Method == "" {
				t.Errorf("%s: %s of %s, %s", s.Name, s.Method, s.ContainerID, s.ExecID)
			}
			counts[s.Method]++
		case "create_container":
			if len(m.Events) != 1 || m.Events[0].Name != "a stage" {
				t.Errorf("events %v", m.Events)
			}
		case "fail":
			if m.Kind != tracepb.Span_SPAN_KIND_CLIENT || !s.Failed || m.GetStatus().GetMessage() != "nobody there" {
				t.Errorf("got %v", m)
			}
		}
		noSecret(t, s)
	}
	if len(sent) > 0 {
		t.Errorf("%d did not come", len(sent))
	}
	// Of root-span nothing comes, here as there: a static's span is never closed.
	if counts["fail"] != 1 || counts["Create"] == 0 || counts["Start"] == 0 || counts["Stats"] == 0 {
		t.Errorf("got %v", counts)
	}
}

func TestGoExporter(t *testing.T) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Errorf("the exporter: %v", err) }))
	e := serve(t)
	sent := goRuntime(t, e.url, 20)
	posts := e.posts(t)
	if len(posts) != 1 {
		t.Errorf("%d processes", len(posts))
	}
	for _, got := range posts {
		checkGo(t, sent, got)
	}
	if n := e.counters.Bodies.Load(); n != uint64(len(sent)) {
		t.Errorf("%d requests for %d spans", n, len(sent))
	}
}

// The Rust exporter speaks HTTP/2 in clear text and traces that: its spans are more
// than its runtime's.
func TestRustExporter(t *testing.T) {
	program := rustjaeger.Program(t)
	e := serve(t)
	const sandbox = "c58a3c91474f5b4adc5a"
	sent := rustRuntime(t, program, e, sandbox, 600) // two batches at least
	posts := e.posts(t)
	if len(posts) != 1 {
		t.Errorf("%d processes", len(posts))
	}
	for _, got := range posts {
		checkRust(t, sandbox, sent, got)
	}
	if e.counters.Exporter.Load() == 0 {
		t.Error("none of the exporter's own spans were dropped")
	}
	if n := e.counters.Bodies.Load(); n < 2 {
		t.Errorf("%d requests", n)
	}
}

// Both of several sandboxes at once: nobody's spans come as another's.
func TestExportersAtOnce(t *testing.T) {
	program := rustjaeger.Program(t)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Errorf("the exporter: %v", err) }))
	e := serve(t)
	const each = 3
	var mu sync.Mutex
	ofGo := make(map[trace.TraceID][]trace.SpanContext)
	ofRust := make(map[string]map[string]string)
	var wg sync.WaitGroup
	for n := range each {
		wg.Go(func() {
			sent := goRuntime(t, e.url, 100)
			mu.Lock()
			defer mu.Unlock()
			ofGo[sent[0].TraceID()] = sent
		})
		wg.Go(func() {
			sandbox := fmt.Sprintf("%08x474f5b4adc5a", n)
			sent := rustRuntime(t, program, e, sandbox, 100)
			mu.Lock()
			defer mu.Unlock()
			ofRust[sandbox] = sent
		})
	}
	wg.Wait()
	posts := e.posts(t)
	if len(posts) != 2*each {
		t.Fatalf("%d processes", len(posts))
	}
	for _, got := range posts {
		if got[0].service == "kata" {
			id := trace.TraceID(got[0].TraceID)
			checkGo(t, ofGo[id], got)
			delete(ofGo, id)
			continue
		}
		sandbox := strings.TrimPrefix(got[0].service, "kata-sb-") + "474f5b4adc5a"
		checkRust(t, sandbox, ofRust[sandbox], got)
		delete(ofRust, sandbox)
	}
	if len(ofGo)+len(ofRust) > 0 {
		t.Errorf("nothing came of %v, %v", ofGo, ofRust)
	}
}
