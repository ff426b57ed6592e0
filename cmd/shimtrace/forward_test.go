package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
)

// stored is a journal's content from the agents.
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
				if s.Name != names.LostAgentSpan {
					st.spans[sandbox] = append(st.spans[sandbox], s)
				}
			}
		}
	}
}

// forwarded is what forward --json prints.
type forwarded struct {
	Connections, Bytes, Spans, Recorded, Quiet uint64
	Refused, Lost                              map[string]uint64
	Journal                                    string
	Shipped                                    *int
	Rejected                                   map[string]int
	ShipError                                  string `json:"ship_error"`
}

func summaryOf(t *testing.T, p *forwardProcess) (sum forwarded) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.stdout.String()), &sum); err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestForwardManyVMs serves VMs that exist, start later, or start again, without a
// collector, and ends while their agents are connected.
func TestForwardManyVMs(t *testing.T) {
	vms, dir := t.TempDir(), filepath.Join(t.TempDir(), "journal")
	first := sandboxDir(t, vms, "first")
	p := startForward(t, "", "--socket-path", vms+"/{ID}/clh.sock", "--journal", dir, "--trace-name", "our agent", "--json")
	connectAgent(t, first)
	second := sandboxDir(t, vms, "second")
	connectAgent(t, second)
	third := sandboxDir(t, vms, "third")
	connectAgent(t, third).Close()
	// The same capture again would be of the same VM as long as it is read.
	eventually(t, "the first agent's last spans are there", func() bool {
		return len(readStored(t, dir).spans["third"]) == capturedSpans-capturedQuiet
	})
	if err := os.Rename(filepath.Dir(third), filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Fatal(err)
	}
	connectAgent(t, sandboxDir(t, vms, "third")).Close()
	p.stop()

	sum := summaryOf(t, p)
	if sum.Connections != 4 || sum.Spans != 4*capturedSpans || len(sum.Lost) > 0 || sum.Quiet != 4*capturedQuiet || sum.Shipped != nil || sum.Journal != dir {
		t.Errorf("%+v", sum)
	}
	st := readStored(t, dir)
	if st.secret {
		t.Error("a container's secret is in the journal")
	}
	if len(st.names) != 1 || !st.names["our agent"] {
		t.Errorf("services are %v", st.names)
	}
	traces := make(map[string]string)
	theirs := capturedTraces(t)
	for sandbox, want := range map[string]int{"first": 1, "second": 1, "third": 2} {
		if n := len(st.spans[sandbox]); n != want*(capturedSpans-capturedQuiet) {
			t.Errorf("%d spans of sandbox %s, want %d", n, sandbox, want*(capturedSpans-capturedQuiet))
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

// TestForwardTwice: the second process at a socket says why it gets nothing, and takes
// over when the first has ended.
func TestForwardTwice(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	one := startForward(t, "", "--socket-path", socket, "--journal", filepath.Join(vms, "one"))
	connectAgent(t, socket).Close()
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
	connectAgent(t, socket).Close()
	two.stop()
	if n := len(readStored(t, filepath.Join(vms, "one")).spans["vm"]); n < capturedSpans/2 {
		t.Errorf("the first has %d spans", n)
	}
	if sum := summaryOf(t, two); sum.Spans != capturedSpans {
		t.Errorf("the second has %+v", sum)
	}
}

// TestForwardUnwritable: what cannot work is reported at once, with what to do.
func TestForwardUnwritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, nil, "forward", "--socket-path", "/nowhere/vm.sock", "--journal", file+"/journal").
		want(t, console.Failure, "", "--journal")
}

func TestForwardUsage(t *testing.T) {
	for args, says := range map[string]string{
		"extra":                          "takes no argument",
		"--nope":                         "--help",
		"--trace-name=":                  "empty",
		"--socket-path=":                 "empty",
		"--socket-path=/":                "no socket",
		"--all --socket-path=/x/y":       "exclude",
		"--otlp-endpoint=collector:4317": "URL",
		"--otlp-endpoint=":               "URL",
		"--dump-only --json":             "stdout",
		"--dump-only --journal=/x":       "--journal",
		"--user=no-such-user-here":       "unknown user",
	} {
		t.Run(args, func(t *testing.T) {
			command(t, nil, append([]string{"forward"}, strings.Fields(args)...)...).want(t, console.Usage, "", says)
		})
	}
}

// TestForwardDocumented: the document lists every flag.
func TestForwardDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/forwarder.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range forwardFlags() {
		if row := regexp.MustCompile("(?m)^\\| `--" + f.Names()[0] + "[ `]"); !row.Match(doc) {
			t.Errorf("--%s is not in the table", f.Names()[0])
		}
	}
}
