package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// collector accepts spans at an address.
type collector struct {
	mu sync.Mutex
	stored
	auth string
}

func (c *collector) count(sandbox string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.spans[sandbox])
}

func startCollector(t *testing.T, l net.Listener) *collector {
	t.Helper()
	c := &collector{stored: stored{spans: make(map[string][]*tracepb.Span), names: make(map[string]bool)}}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body io.Reader = r.Body
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = z
		}
		data, err := io.ReadAll(body)
		req := new(coltracepb.ExportTraceServiceRequest)
		if err == nil {
			err = proto.Unmarshal(data, req)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.add(req.ResourceSpans)
		c.auth = r.Header.Get("Authorization")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return c
}

// TestForwardCollectorLater: a collector that starts later gets everything.
func TestForwardCollectorLater(t *testing.T) {
	address := testkit.FreePort(t)
	vms, dir := t.TempDir(), t.TempDir()
	// The command line sets the endpoint, the configuration the rest.
	config := "[export]\nendpoint = \"http://127.0.0.1:9\"\nheaders = { authorization = \"Bearer abc\" }\n"
	p := startForward(t, config, "--socket-path", sandboxDir(t, vms, "vm"), "--journal", dir, "--otlp-endpoint", "http://"+address, "--json", "--keep-trace-ids")
	connectAgent(t, filepath.Join(vms, "vm", "clh.sock")).Close()
	p.says("trying again") // after some seconds, in a status line
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c := startCollector(t, l)
	eventually(t, "the collector gets the spans", func() bool { return c.count("vm") > capturedSpans/2 })
	p.stop()
	sum := summaryOf(t, p)
	if n := c.count("vm"); n != capturedSpans-int(sum.Quiet) || c.auth != "Bearer abc" {
		t.Errorf("the collector has %d spans of %d, authorized by %q", n, capturedSpans-sum.Quiet, c.auth)
	}
	if sum.Shipped == nil || uint64(*sum.Shipped) != sum.Recorded {
		t.Errorf("%+v", sum)
	}
	theirs := capturedTraces(t)
	for _, s := range c.spans["vm"] {
		if !theirs[trace.TraceID(s.TraceId)] {
			t.Errorf("%s is in trace %x, which the agent does not know", s.Name, s.TraceId)
		}
	}
}

// capturedTraces returns the traces that the agent named.
func capturedTraces(t *testing.T) map[trace.TraceID]bool {
	t.Helper()
	traces := make(map[trace.TraceID]bool)
	for _, s := range captured.AgentSpans(t, captured.Go+".agent") {
		traces[s.TraceID] = true
	}
	return traces
}

// TestForwardNoCollector: without a collector the process still ends in time, and the
// spans wait for the next one.
func TestForwardNoCollector(t *testing.T) {
	vms, dir := t.TempDir(), t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	p := startForward(t, "", "--socket-path", socket, "--journal", dir, "--otlp-endpoint", "http://127.0.0.1:9")
	connectAgent(t, socket)
	p.stop()
	p.says("waits in the journal " + dir)
	if n := len(readStored(t, dir).spans["vm"]); n < capturedSpans/2 {
		t.Errorf("%d spans are in the journal", n)
	}
}

// TestForwardShared: of two processes with different sockets and the same journal, one
// ships for both, and when it ends, the other.
func TestForwardShared(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := startCollector(t, l)
	vms, dir := t.TempDir(), t.TempDir()
	endpoint := "http://" + l.Addr().String()
	a, b := sandboxDir(t, vms, "a"), sandboxDir(t, vms, "b")
	one := startForward(t, "", "--socket-path", a, "--journal", dir, "--otlp-endpoint", endpoint)
	connectAgent(t, a).Close()
	eventually(t, "the first ships", func() bool { return c.count("a") > 0 })
	two := startForward(t, "", "--socket-path", b, "--journal", dir, "--otlp-endpoint", endpoint)
	two.says("another process ships the journal")
	connectAgent(t, b).Close()
	eventually(t, "the first ships the second's", func() bool { return c.count("b") > 0 })
	one.stop()
	before := c.count("b")
	connectAgent(t, b).Close()
	eventually(t, "the second ships", func() bool { return c.count("b") > before })
	two.stop()
}
