package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.opentelemetry.io/otel/trace"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/export/journal"
	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/collate"
)

// stored is what a journal has of the agents' spans.
type stored struct {
	spans  map[string][]*tracepb.Span // by sandbox
	names  map[string]bool            // service.name
	secret bool
}

func readStored(t *testing.T, dir string) stored {
	t.Helper()
	st := stored{spans: make(map[string][]*tracepb.Span), names: make(map[string]bool)}
	_, err := journal.Scan(dir, func(rec journal.Record) error {
		st.secret = st.secret || bytes.Contains(rec.Payload, []byte("hunter2"))
		if rec.Kind != journal.KindTraces {
			return nil
		}
		traces, err := rec.Traces()
		if err != nil {
			return err
		}
		st.add(traces.ResourceSpans)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (st stored) add(all []*tracepb.ResourceSpans) {
	for _, rs := range all {
		sandbox := ""
		for _, kv := range rs.Resource.Attributes {
			switch kv.Key {
			case "shimtrace.sandbox.id":
				sandbox = kv.Value.GetStringValue()
			case "service.name":
				st.names[kv.Value.GetStringValue()] = true
			}
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				if s.Name != collate.LostName {
					st.spans[sandbox] = append(st.spans[sandbox], s)
				}
			}
		}
	}
}

func summaryOf(t *testing.T, p *forwardProcess) (sum forwardSummary) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.stdout.String()), &sum); err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestForwardManyVMs serves VMs that are there, that come later, and that come
// again, without a collector, and is ended while their agents are connected.
func TestForwardManyVMs(t *testing.T) {
	vms, dir := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	first := sandboxDir(t, vms, "first")
	p := startForward(t, "", "--socket-path", vms+"/{ID}/clh.sock", "--journal", dir, "--trace-name", "our agent", "--json")
	agent(t, first)
	second := sandboxDir(t, vms, "second")
	agent(t, second)
	third := sandboxDir(t, vms, "third")
	agent(t, third).Close()
	if err := os.Rename(filepath.Dir(third), filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Fatal(err)
	}
	agent(t, sandboxDir(t, vms, "third")).Close()
	p.stop()

	sum := summaryOf(t, p)
	if sum.Connections != 4 || sum.Spans != 4*capturedSpans || len(sum.Lost) > 0 || sum.Quiet == 0 || sum.Shipped != nil || sum.Journal != dir {
		t.Errorf("%+v", sum)
	}
	st := readStored(t, dir)
	if st.secret {
		t.Error("a container's secret is in the journal")
	}
	if len(st.names) != 1 || !st.names["our agent"] {
		t.Errorf("services are %v", st.names)
	}
	quiet, traces := int(sum.Quiet)/4, make(map[string]string)
	theirs := capturedTraces(t)
	for sandbox, want := range map[string]int{"first": 1, "second": 1, "third": 2} {
		if n := len(st.spans[sandbox]); n != want*(capturedSpans-quiet) {
			t.Errorf("%d spans of sandbox %s, want %d", n, sandbox, want*(capturedSpans-quiet))
		}
		for _, s := range st.spans[sandbox] {
			id := hex.EncodeToString(s.TraceId)
			if theirs[trace.TraceID(s.TraceId)] {
				t.Fatalf("the guest of %s chose the trace id %s", sandbox, id)
			}
			if other := traces[id]; other != "" && other != sandbox {
				t.Fatalf("a trace is of %s and of %s", sandbox, other)
			}
			traces[id] = sandbox
		}
	}
	for _, socket := range []string{first, second, third} {
		if _, err := os.Lstat(socket + "_10240"); !os.IsNotExist(err) {
			t.Errorf("%s_10240 was left behind: %v", socket, err)
		}
	}
}

// collector takes spans at an address.
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

// TestForwardCollectorLater: there is no collector, then there is, and gets all.
func TestForwardCollectorLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	vms, dir := t.TempDir(), t.TempDir()
	// The command line's endpoint is the one; the rest is as configured.
	config := "[export]\nendpoint = \"http://127.0.0.1:9\"\nheaders = { authorization = \"Bearer abc\" }\n"
	p := startForward(t, config, "--socket-path", sandboxDir(t, vms, "vm"), "--journal", dir, "--otlp-endpoint", "http://"+address, "--json", "--keep-trace-ids")
	agent(t, filepath.Join(vms, "vm", "clh.sock")).Close()
	p.says("trying again") // after some seconds, in a line about how it goes
	if l, err = net.Listen("tcp", address); err != nil {
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
	data, err := agentCapture()
	if err != nil {
		t.Fatal(err)
	}
	traces, r, d := make(map[trace.TraceID]bool), agentwire.NewReader(bytes.NewReader(data), agentwire.Options{}), agentwire.NewDecoder(agentwire.Options{})
	for {
		payload, err := r.Next()
		if err == io.EOF {
			return traces
		}
		var s agentwire.Span
		if err == nil {
			err = d.Decode(payload, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		traces[s.TraceID] = true
	}
}

// TestForwardNoCollector: without a collector the process ends in time all the
// same, and the spans wait for the next one.
func TestForwardNoCollector(t *testing.T) {
	vms, dir := t.TempDir(), t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	p := startForward(t, "", "--socket-path", socket, "--journal", dir, "--otlp-endpoint", "http://127.0.0.1:9")
	agent(t, socket)
	p.stop()
	p.says("waits in the journal " + dir)
	if n := len(readStored(t, dir).spans["vm"]); n < capturedSpans/2 {
		t.Errorf("%d spans are in the journal", n)
	}
}

// TestForwardDump: a line a span, each OTLP/JSON, nothing changed but what must not
// be seen, nothing stored.
func TestForwardDump(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	p := startForward(t, "[journal]\ndir = \"/proc/none\"\n", "--socket-path", socket, "--dump-only")
	agent(t, socket)
	eventually(t, "all spans are printed", func() bool { return strings.Count(p.stdout.String(), "\n") == capturedSpans })
	p.stop()
	if strings.Contains(p.stdout.String(), "hunter2") {
		t.Error("a container's secret is printed")
	}
	lines := bufio.NewScanner(strings.NewReader(p.stdout.String()))
	lines.Buffer(nil, 1<<20)
	names := make(map[string]int)
	for lines.Scan() {
		span := otlpLine(t, lines.Text())
		names[span.Name]++
		if len(span.TraceId) != 16 || len(span.SpanId) != 8 || span.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
			t.Fatalf("ids or kind are not what they were: %s", lines.Text())
		}
	}
	if names["create_container"] != 3 || names["stats_container"] == 0 || names[collate.LostName] > 0 {
		t.Errorf("spans are %v", names)
	}
}

// otlpLine reads a document as the OTLP specification has it, strictly.
func otlpLine(t *testing.T, line string) *tracepb.Span {
	t.Helper()
	ids := regexp.MustCompile(`"(traceId|spanId|parentSpanId)":"([^"]*)"`)
	asProto := ids.ReplaceAllStringFunc(line, func(m string) string {
		parts := ids.FindStringSubmatch(m)
		id, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatalf("%s is not hexadecimal", m)
		}
		return fmt.Sprintf("%q:%q", parts[1], base64.StdEncoding.EncodeToString(id))
	})
	var doc tracepb.TracesData
	if err := protojson.Unmarshal([]byte(asProto), &doc); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if len(doc.ResourceSpans) != 1 || len(doc.ResourceSpans[0].ScopeSpans) != 1 || len(doc.ResourceSpans[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("not one span: %s", line)
	}
	return doc.ResourceSpans[0].ScopeSpans[0].Spans[0]
}

// TestForwardDumpToNobody: when nobody reads stdout any more, it is over.
func TestForwardDumpToNobody(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := newForward(t, "", "--socket-path", socket, "--dump-only")
	p.cmd.Stdout = full
	p.start()
	agent(t, socket)
	p.ends(exitFailure)
	p.says("print a span")
}

// TestForwardTwice: of two at the same socket the second says why it gets nothing,
// and takes over when the first has ended.
func TestForwardTwice(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	one := startForward(t, "", "--socket-path", socket, "--journal", filepath.Join(vms, "one"))
	agent(t, socket).Close()
	two := startForward(t, "", "--socket-path", socket, "--journal", filepath.Join(vms, "two"), "--json")
	two.says("somebody else listens there")
	one.stop()
	eventually(t, "the second listens", func() bool {
		conn, err := net.Dial("unix", socket+"_10240")
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	agent(t, socket).Close()
	two.stop()
	if n := len(readStored(t, filepath.Join(vms, "one")).spans["vm"]); n < capturedSpans/2 {
		t.Errorf("the first has %d spans", n)
	}
	if sum := summaryOf(t, two); sum.Spans != capturedSpans {
		t.Errorf("the second has %+v", sum)
	}
}

// TestForwardShared: two with different sockets and the same journal; one of them
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
	agent(t, a).Close()
	eventually(t, "the first ships", func() bool { return c.count("a") > 0 })
	two := startForward(t, "", "--socket-path", b, "--journal", dir, "--otlp-endpoint", endpoint)
	two.says("another process ships the journal")
	agent(t, b).Close()
	eventually(t, "the first ships the second's", func() bool { return c.count("b") > 0 })
	one.stop()
	before := c.count("b")
	agent(t, b).Close()
	eventually(t, "the second ships", func() bool { return c.count("b") > before })
	two.stop()
}

// TestForwardAs: what guests send is read by a process that may do nothing.
func TestForwardAs(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("only root can start a process as another user")
		}
		t.Skip("only root can start a process as another user")
	}
	vms, dir := openDir(t), filepath.Join(openDir(t), "journal")
	p := startForward(t, "", "--socket-path", vms+"/{sandbox}/clh.sock", "--journal", dir, "--user", "nobody", "--json")
	agent(t, sandboxDir(t, vms, "a"))
	agent(t, sandboxDir(t, vms, "b")).Close()
	// By now the one that listens is not needed: the connections are the other's.
	eventually(t, "spans are stored", func() bool { return len(readStored(t, dir).spans["b"]) > 0 })
	segments, err := filepath.Glob(dir + "/*.seg")
	if err != nil || len(segments) == 0 {
		t.Fatal("no segments: ", err)
	}
	st, err := os.Stat(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid == 0 {
		t.Error("the journal was written by root")
	}
	p.stop()
	if sum := summaryOf(t, p); sum.Connections != 2 || sum.Spans != 2*capturedSpans {
		t.Errorf("%+v", sum)
	}
	if _, err := os.Lstat(vms + "/a/clh.sock_10240"); !os.IsNotExist(err) {
		t.Error("the socket was left behind: ", err)
	}
}

// TestForwardAsFails: the exit code is that of the process which failed.
func TestForwardAsFails(t *testing.T) {
	if os.Geteuid() != 0 {
		command(t, nil, "forward", "--socket-path", "/vm.sock", "--user", "nobody").want(t, exitUsage, "", "only root")
		return
	}
	p := startForward(t, "", "--socket-path", "/nowhere/vm.sock", "--journal", t.TempDir(), "--user", "nobody")
	p.ends(exitFailure)
	p.says("cannot be written to")
}

// TestForwardUnwritable: what cannot work is said at once, with what to do.
func TestForwardUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, nil, "forward", "--socket-path", "/nowhere/vm.sock", "--journal", file+"/journal").
		want(t, exitFailure, "", "--journal")
	config := file + ".toml"
	if err := os.WriteFile(config, []byte("[relay]\nstate_dir = \""+file+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, map[string]string{"SHIMTRACE_CONFIG": config}, "forward").want(t, exitFailure, "", "relay.state_dir")
}

func TestForwardUsage(t *testing.T) {
	for args, says := range map[string]string{
		"extra":                             "takes no argument",
		"--nope":                            "--help",
		"--trace-name=":                     "empty",
		"--socket-path=":                    "empty",
		"--socket-path=/":                   "no socket",
		"--all --socket-path=/x/y":          "exclude",
		"--vsock-port=10241":                "10240",
		"--vsock-port=":                     "10240",
		"--vsock-cid=some":                  `"any"`,
		"--vsock-cid=1":                     "begin at 3",
		"--vsock-cid=3 --socket-path=/x/y":  "hybrid",
		"--otlp-endpoint=collector:4317":    "URL",
		"--otlp-endpoint=":                  "URL",
		"--log-level=loud":                  "critical",
		"--dump-only --json":                "stdout",
		"--dump-only --journal=/x":          "--journal",
		"--user=no-such-user-here":          "unknown user",
		"--jaeger-host=h --jaeger-port=683": "--otlp-endpoint",
	} {
		t.Run(args, func(t *testing.T) {
			command(t, nil, append([]string{"forward"}, strings.Fields(args)...)...).want(t, exitUsage, "", says)
		})
	}
}
