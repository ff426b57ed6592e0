package vm_test

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/integration/vm/agentcall"
	"github.com/shimtrace/shimtrace/internal/forwarder"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// agentLife is what a runtime asks of an agent: methods, and the container that
// they are about.
var agentLife = [][2]string{
	{"CreateSandbox", ""}, {"CreateContainer", "c1"}, {"StartContainer", "c1"},
	{"RemoveContainer", "c1"}, {"DestroySandbox", ""},
}

// agentSpans are some of what it then sends; those that it makes for a request are
// in the request's trace.
var (
	agentSpans = []string{"create_sandbox", "create_container", "start_container", "remove_container", "destroy_sandbox"}
	ownSpans   = []string{"root-span", "watch_uevents"}
)

func TestHybridAgentsSpansArrive(t *testing.T) {
	program := agent.Program(t) // first, for it may take minutes, and who listens does not look as often then
	dir := t.TempDir()
	sandbox := filepath.Join(dir, "pod")
	socket := filepath.Join(sandbox, "vm.sock")
	spans := &collector{closed: make(chan error, 1)}
	f := forwarder.New(forwarder.Options{Sink: spans})
	listener, err := listen.NewHybrid("pod", listen.HybridOptions{
		Patterns: []listen.Pattern{{VMM: "test", Path: filepath.Join(dir, "{sandbox}", "vm.sock")}},
		Warn:     func(err error) { t.Error(err) },
	}, f.Take)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { listener.Serve(ctx) })
	defer serving.Wait()
	defer stop()

	if err := os.Mkdir(sandbox, 0o700); err != nil {
		t.Fatal(err)
	}
	g := vm.StartHybrid(t, vm.HybridOptions{
		Socket:   socket,
		Files:    map[string]string{"bin/agent": program},
		Services: []string{"agent --listen vsock://-1:1024 --export vsock://2:10240 --flush-ms 200"},
	})
	const trace = "0123456789abcdef0123456789abcdef"
	for _, c := range agentLife {
		conn := dialAgent(t, socket)
		if err := agentcall.Call(t.Context(), conn, c[0], c[1], "00-"+trace+"-0123456789abcdef-01"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-spans.closed:
		if err != nil {
			t.Errorf("the agent's connection ended by %v", err)
		}
	case <-time.After(patience):
		t.Fatalf("the agent has not ended its connection; it printed\n%s", strings.Join(g.Lines(), "\n"))
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := f.Snapshot(); len(n.Lost) != 0 || len(n.Refused) != 0 || n.Accepted != 1 {
		t.Errorf("counts %+v", n)
	}
	names := spans.names(trace)
	for _, name := range agentSpans {
		if !slices.Contains(names, name) {
			t.Errorf("span %s has not arrived in the request's trace: %v", name, names)
		}
	}
	for _, name := range ownSpans {
		if slices.Contains(names, name) || !slices.Contains(spans.names(""), name) {
			t.Errorf("span %s has not arrived in a trace of its own: %v", name, spans.names(""))
		}
	}
	for _, s := range spans.spans {
		if strings.Contains(string(s.AppendOTLP(nil)), "hunter2") {
			t.Errorf("span %s has a container's secret", s.Name)
		}
	}
}

// TestAgentsOfTwoSandboxes has agents of both encodings in VMs of one host, and
// looks for each one's traces with each one's relay.
func TestAgentsOfTwoSandboxes(t *testing.T) {
	program, files := agent.Program(t), map[string]string{"bin/peer": program(t, "peer"), "bin/relay": program(t, "relay")}
	h := host{t, vm.StartNested(t, vm.NestedOptions{
		Files:      files,
		GuestFiles: map[string]string{"bin/agent": program},
		GuestServices: []string{"case $VM_CID in 3) e=json;; *) e=bincode;; esac; " +
			"agent --listen vsock://-1:1024 --export vsock://2:10240 --flush-ms 200 --encoding $e"},
		Guests: []uint32{3, 4},
		Log:    t.Output(),
	})}
	traces := map[uint32]string{3: strings.Repeat("3", 32), 4: strings.Repeat("4", 32)}
	h.guard(time.Hour)
	for cid := range traces {
		h.relay(cid)
	}
	for _, c := range agentLife {
		for cid, trace := range traces {
			h.sh(fmt.Sprintf("peer call %d 1024 %s '%s' 00-%s-0123456789abcdef-01", cid, c[0], c[1], trace))
		}
	}
	for cid := range traces {
		h.wait(fmt.Sprintf(`^relay sandbox-%d: sandbox "sandbox-%d" CID %d: closed: <nil>$`, cid, cid, cid))
	}
	h.sh("kill $(pidof relay)")
	for cid := range traces {
		h.wait(fmt.Sprintf(`^relay sandbox-%d: delivered [0-9]+, lost map\[\], refused map\[\]$`, cid))
	}

	line := regexp.MustCompile(`^relay sandbox-(\d): sandbox "sandbox-(\d)" CID (\d): trace ([0-9a-f]{32}): (.*)$`)
	owner, names := map[string]string{}, map[string]string{}
	for _, l := range h.Lines() {
		m := line.FindStringSubmatch(l)
		if m == nil {
			continue
		}
		if m[1] != m[2] || m[1] != m[3] || owner[m[4]] != "" {
			t.Errorf("trace %s is with relay %s, of sandbox %s, CID %s, and with relay %q", m[4], m[1], m[2], m[3], owner[m[4]])
		}
		owner[m[4]] = m[1]
		names[m[4]] = " " + m[5] + " "
		names[m[1]] += " " + m[5] + " "
	}
	for cid, trace := range traces {
		if owner[trace] != fmt.Sprint(cid) {
			t.Errorf("the trace of guest %d is with relay %q", cid, owner[trace])
		}
		for _, name := range agentSpans {
			if !strings.Contains(names[trace], " "+name+" ") {
				t.Errorf("guest %d: span %s has not arrived in the request's trace: %s", cid, name, names[trace])
			}
		}
		for _, name := range ownSpans {
			if !strings.Contains(names[fmt.Sprint(cid)], " "+name+" ") {
				t.Errorf("guest %d: span %s has not arrived: %s", cid, name, names[fmt.Sprint(cid)])
			}
		}
	}
}

// dialAgent connects to the agent in a hybrid guest, as Kata's runtime does: until
// the agent listens.
func dialAgent(t *testing.T, socket string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "CONNECT 1024\n")
		ok, err := bufio.NewReaderSize(conn, 16).ReadString('\n') // the agent speaks when it is spoken to
		if err == nil && strings.HasPrefix(ok, "OK ") {
			return conn
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not listen: %q, %v", ok, err)
		}
	}
}

// A collector keeps spans.
type collector struct {
	closed chan error

	mu    sync.Mutex
	spans []*span.Span
}

func (c *collector) Span(_ forwarder.ConnInfo, span *span.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, span)
}

func (c *collector) Closed(_ forwarder.ConnInfo, err error) { c.closed <- err }

// names are those of the spans of a trace, or of all.
func (c *collector) names(trace string) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if trace == "" || hex.EncodeToString(s.TraceID[:]) == trace {
			names = append(names, s.Name)
		}
	}
	return names
}
