package kata

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/host/hosttest"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// capturedSandbox is the pod whose runtime's posts are replayed: runtime-rs's, which
// calls itself by the first characters of the id.
const capturedSandbox = "c58a3c91474f5b4adc5a4b96701e44718fa3e3a0c1efd2b7543410d75050244f"

// capturedSpans are its own, without its exporter's.
const capturedSpans = 229

// runtimeHost is what a relay finds on a host: the tool, a configuration, and an inner
// shim that runs.
func runtimeHost(t *testing.T) (cfg config.Config, inner string) {
	t.Helper()
	dir := t.TempDir()
	tool := exec.Command("go", "build", "-o", filepath.Join(dir, "shimtrace"), "github.com/shimtrace/shimtrace/cmd/shimtrace")
	if out, err := tool.CombinedOutput(); err != nil {
		t.Fatalf("build the tool: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	at := testkit.FreePort(t)
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[jaeger]\nlisten = %q\n[agent]\nreceive = \"off\"\ninject = \"off\"\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "journal"), at)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(config.PathEnv, file)
	cfg, report := config.Load("", os.Getenv)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}

	shell, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	inner = filepath.Join(dir, "containerd-shim-kata-test-v2")
	if err := os.WriteFile(inner, shell, 0o700); err != nil {
		t.Fatal(err)
	}
	shim := exec.Command(inner, "-c", "read line", "-id", capturedSandbox)
	in, err := shim.StdinPipe()
	if err == nil {
		err = shim.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = shim.Wait()
	})
	return cfg, inner
}

// newObserver returns one for the sandbox of the captured posts.
func newObserver(t *testing.T, cfg config.Config, inner string, log *slog.Logger) *Observer {
	t.Helper()
	who := state.Identity{Sandbox: capturedSandbox, Namespace: "k8s.io", Inner: inner}
	tel, err := telemetry.Open(cfg, who, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Guard: unguarded{}, Config: cfg, Who: who, Container: capturedSandbox, Telemetry: tel, Log: log})
}

// endpoints returns the processes that receive for the host.
func endpoints(cfg config.Config) (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(text)) {
			env, _ := os.ReadFile("/proc/" + field + "/environ")
			line, _ := os.ReadFile("/proc/" + field + "/cmdline")
			if pid, err := strconv.Atoi(field); err == nil && bytes.HasSuffix(line, []byte("\x00collect\x00")) &&
				bytes.Contains(env, []byte(filepath.Dir(cfg.Relay.StateDir))) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// TestRuntimesSpans: a relay has the endpoint opened before the runtime can post, and
// what the runtime posts until its end is in the journal when the relay has ended.
func TestRuntimesSpans(t *testing.T) {
	cfg, inner := runtimeHost(t)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	o := newObserver(t, cfg, inner, log)
	t.Cleanup(func() {
		for _, pid := range endpoints(cfg) {
			if p, err := os.FindProcess(pid); err == nil {
				_ = p.Kill()
			}
		}
		shimtest.Eventually(t, "the endpoint ends", func() bool { return len(endpoints(cfg)) == 0 })
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: protocols}
	client := &http.Client{Transport: transport}
	post := func(body []byte) {
		t.Helper()
		answer, err := client.Post("http://"+cfg.Jaeger.Listen+"/api/traces", "application/vnd.apache.thrift.binary", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode/100 != 2 {
			t.Fatal(answer.Status)
		}
	}
	posts := captured.Posts(t, captured.Rust)
	at := netip.MustParseAddrPort(cfg.Jaeger.Listen)
	shimtest.Eventually(t, "the port is open", func() (open bool) {
		err := host.Proc("/proc").TCP(at.Port(), func(s host.TCPSocket) { open = open || s.Listening && s.Local == at })
		return err == nil && open
	})
	post(posts[0]) // nobody has to wait until the endpoint is there

	sandbox := newPod(t, cfg.Trace)
	o.Start(sandbox, sandbox.state)
	for _, body := range posts[1:] {
		post(body)
	}
	transport.CloseIdleConnections() // as its end does
	o.Close()
	o.Telemetry.Close(log, 0)

	root, spans := sandbox.Root(), 0
	_, err := journal.Scan(cfg.Journal.Dir, func(rec journal.Record) error {
		if rec.Kind != journal.KindTraces {
			t.Errorf("a record of kind %d with %d spans: %s", rec.Kind, rec.Spans, rec.Payload)
			return nil
		}
		if bytes.Contains(rec.Payload, []byte("hunter2")) {
			t.Error("a container's secret is in the journal")
		}
		traces, err := rec.Traces()
		if err != nil {
			return err
		}
		for _, rs := range traces.ResourceSpans {
			service := ""
			for _, kv := range rs.Resource.Attributes {
				if kv.Key == "service.name" {
					service = kv.Value.GetStringValue()
				}
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					if service != names.RuntimeScope || trace.TraceID(s.TraceId) != root.TraceID() {
						t.Errorf("%s of %q is in trace %x, not the sandbox's", s.Name, service, s.TraceId)
					}
					spans++
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// What is quiet is no loss.
	if n := o.forwarder.Snapshot(); spans != int(n.Sent) || spans == 0 || n.Sent+n.Unwanted < capturedSpans || len(n.Lost) > 0 {
		t.Errorf("%d spans are in the journal: %+v", spans, n)
	}
}

// TestRuntimesPortOfAnotherUser: relays say loudly whose it is, once a minute together,
// and go on without the runtimes' spans.
func TestRuntimesPortOfAnotherUser(t *testing.T) {
	l := hosttest.ListenAs(t, hosttest.Nobody)
	cfg := config.Default()
	cfg.Relay.StateDir, cfg.Jaeger.Listen = t.TempDir(), l.Addr().String()
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	s := &runtimeSpans{dir: cfg.Relay.StateDir, log: log}
	loud := func() int { return strings.Count(text.String(), "level=ERROR") }
	for range 64 { // relays of the host
		if _, err := s.listen(cfg.Jaeger.Listen); err == nil || !strings.Contains(err.Error(), "of user 65534") {
			t.Fatal(err)
		}
	}
	if loud() != 1 || !strings.Contains(text.String(), "(kata.test) of user 65534") || !strings.Contains(text.String(), cfg.Jaeger.Listen) {
		t.Errorf("the log:\n%s", text.String())
	}
	ago := time.Now().Add(-takenInterval)
	if err := os.Chtimes(filepath.Join(s.dir, "taken"), ago, ago); err != nil {
		t.Fatal(err)
	}
	_, _ = s.listen(cfg.Jaeger.Listen)
	if loud() != 2 {
		t.Errorf("a minute later the log is:\n%s", text.String())
	}
	kept := export.NewKeeper(cfg, t.Logf)
	defer func() { kept.Close(0) }() // the one that there is then: Receive makes another
	o := &Observer{Options: Options{Config: cfg, Who: state.Identity{Inner: "containerd-shim-kata-v2"}, Log: log, Telemetry: &telemetry.Telemetry{Keeper: kept}}}
	if s := o.openRuntimes(); s == nil {
		t.Error("it is not tried again")
	} else {
		s.close()
	}
	reliability.Row(t, reliability.Fault{
		Area: "Local users", Fault: "another user has the endpoint's port while pods run",
		Pod: "nothing", Lost: "the runtimes' own spans go to him; the log says so once a minute, with process and user",
	})
}

// TestRuntimesNotReceived: for another shim than Kata's, or where it is switched off,
// nothing is opened and nothing left on disk.
func TestRuntimesNotReceived(t *testing.T) {
	for inner, receive := range map[string]string{"containerd-shim-runc-v2": "auto", "containerd-shim-kata-v2": "off"} {
		cfg := config.Default()
		cfg.Relay.StateDir, cfg.Jaeger.Receive = t.TempDir(), receive
		o := &Observer{Options: Options{Config: cfg, Who: state.Identity{Inner: inner}, Log: slog.New(slog.DiscardHandler)}}
		if o.openRuntimes() != nil {
			t.Errorf("%s, %s: it is opened", inner, receive)
		}
		if entries, err := os.ReadDir(cfg.Relay.StateDir); err != nil || len(entries) > 0 {
			t.Errorf("%s, %s: %v, %v", inner, receive, entries, err)
		}
	}
}
