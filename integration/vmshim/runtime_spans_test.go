package vmshim_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/internal/forwarder/endpoint"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// runtimesEndpoint is where Kata's runtimes post their spans, in the network of a rig.
const runtimesEndpoint = "127.0.0.1:276"

// A collector takes what runtimes post, each span in a request of its own.
type collector struct {
	mu    sync.Mutex
	spans []span.Span // in their order
}

// collect starts a collector that lives as long as the test.
func collect(t *testing.T, r *rig.Rig) *collector {
	t.Helper()
	c := &collector{}
	decoder := endpoint.NewDecoder(endpoint.Options{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/api/traces" || r.Header.Get("Content-Type") != "application/x-thrift" {
			t.Errorf("%s %s of %s: %v", r.Method, r.URL, r.Header, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		service, spans, err := decoder.Decode(body)
		if err != nil || service != "kata" || len(spans) != 1 {
			t.Errorf("%d spans of %s in one request: %v", len(spans), service, err)
		}
		c.spans = append(c.spans, spans...)
		w.WriteHeader(http.StatusAccepted)
	})}
	listener := listenThere(t, r)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
	return c
}

// listenThere listens at the endpoint in a rig's network namespace, where its shims
// run.
func listenThere(t *testing.T, r *rig.Rig) net.Listener {
	t.Helper()
	var listener net.Listener
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread is not fit for anything else
		var ns *os.File
		if ns, err = os.Open(r.NetNS()); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			listener, err = net.Listen("tcp", runtimesEndpoint)
		}
	}()
	<-done
	check(t, err)
	return listener
}

func (c *collector) all() []span.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// TestRuntimeSpans holds what the shim posts to what Kata's Go runtime does.
func TestRuntimeSpans(t *testing.T) {
	r, runtime, host := start(t, "VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://"+runtimesEndpoint+"/api/traces")
	c := collect(t, r)
	pod := podLife(t, r, runtime)
	got := host.wait(pod.sandbox)
	var spans []span.Span
	eventually(t, "the runtime to post its root, which ends after the VM", func() bool {
		spans = c.all()
		return slices.ContainsFunc(spans, func(s span.Span) bool { return s.Name == "rootSpan" })
	})
	byID := map[[8]byte]span.Span{}
	for _, s := range spans {
		byID[s.SpanID] = s
		if s.TraceID != spans[0].TraceID {
			t.Fatalf("%s is in another trace than %s", s.Name, spans[0].Name)
		}
	}
	if first := spans[0]; first.Name != "createAssets" || first.Sandbox != pod.sandbox {
		t.Errorf("the first span is %s of sandbox %q, want createAssets of %s", first.Name, first.Sandbox, pod.sandbox)
	}
	root := spans[len(spans)-1]
	if root.Name != "rootSpan" || root.ParentID != ([8]byte{}) {
		t.Errorf("the last span is %s, a child of %x", root.Name, root.ParentID)
	}

	calls := map[string]int{}
	named, scans := 0, 0
	for _, s := range spans {
		parent := byID[s.ParentID]
		if s.SpanID != root.SpanID && parent.Name == "" {
			t.Errorf("%s is a child of a span that never came", s.Name)
		}
		if s.Start < root.Start || s.End > root.End {
			t.Errorf("%s is not within the root", s.Name)
		}
		if s.Sandbox != "" {
			named++
		}
		if s.Name == "AddEndpoints" {
			scans++
		}
		isCall := parent.SpanID == root.SpanID && !strings.HasPrefix(s.Name, "ttrpc.")
		if isCall {
			calls[s.Name]++
		}
		if (s.Method != "") != isCall {
			t.Errorf("%s below %s is the call %q", s.Name, parent.Name, s.Method)
		}
	}
	for name, want := range map[string]int{"create": 3, "Start": 4, "Exec": 1, "Delete": 4, "Shutdown": 3, "Kill": -1, "Wait": -1, "State": -1} {
		if n := calls[name]; n == 0 || want > 0 && n != want {
			t.Errorf("%d calls %s, want %d", n, name, want)
		}
	}
	if named == 0 || named > len(spans)/4 || scans == 0 {
		t.Errorf("of %d spans %d name the sandbox, %d are scans", len(spans), named, scans)
	}

	// The agent's are below those of the requests to it.
	rpcs := 0
	for _, s := range got.spans {
		if !isRPC(s.Name) {
			continue
		}
		rpcs++
		request := byID[s.ParentID]
		if s.TraceID != root.TraceID || snake(strings.TrimPrefix(request.Name, "ttrpc.")) != s.Name {
			t.Errorf("%s is below %q", s.Name, request.Name)
		}
	}
	if rpcs == 0 {
		t.Error("no request reached the agent")
	}
	if t.Failed() {
		for _, s := range spans {
			t.Logf("%s < %s", s.Name, byID[s.ParentID].Name)
		}
	}
}

// TestRuntimeSpansRefused: nobody listens, and a container runs.
func TestRuntimeSpansRefused(t *testing.T) {
	r, runtime, host := start(t, "VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://"+runtimesEndpoint+"/api/traces")
	pod := podLife(t, r, runtime)
	if host.wait(pod.sandbox).named("destroy_sandbox") == nil {
		t.Error("the sandbox was not destroyed")
	}
}
