package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/keeper/keepertest"
	"github.com/shimtrace/shimtrace/internal/reliability"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestShipNowhere(t *testing.T) {
	command(t, nil, "ship", "--journal", t.TempDir()).want(t, console.Failure, "", "OTEL_EXPORTER_OTLP_ENDPOINT")
}

// TestShipOnce ships a journal to a collector that takes everything, and finds
// nothing to do the second time.
func TestShipOnce(t *testing.T) {
	var uploads atomic.Int32
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/v1/traces" {
			uploads.Add(1)
		}
	}))
	defer collector.Close()
	dir := writeJournal(t, shown...)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL) // read by the client itself
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}
	command(t, env, "ship", "--journal", dir, "--once").want(t, console.OK, "", "8 spans shipped")
	if uploads.Load() == 0 {
		t.Error("the collector got nothing")
	}
	command(t, env, "ship", "--journal", dir, "--once").want(t, console.OK, "", "0 spans shipped")
}

// TestShipHeld: it is no failure if another process ships.
func TestShipHeld(t *testing.T) {
	dir := writeJournal(t, shown...)
	lock, err := journal.LockShipping(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
	command(t, env, "ship", "--journal", dir, "--once").want(t, console.OK, "", "another process ships")
}

// TestShipRefusesAnotherUsersDirectory: root would remove and write files of the user's
// choice there.
func TestShipRefusesAnotherUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("a directory of another user needs root")
	}
	dir := writeJournal(t, shown...)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
	command(t, env, "ship", "--journal", dir, "--once").want(t, console.Failure, "", "belongs to user 65534")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".seg" {
			t.Errorf("%s was made there", e.Name())
		}
	}
}

// TestCollectStoppedShips: a relay with spans to ship replaces a stopped shipper, and
// the next one ships them.
func TestCollectStoppedShips(t *testing.T) {
	var uploads atomic.Int32
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		uploads.Add(1)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	defer collector.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[export]\nendpoint = %q\n", dir, filepath.Join(dir, "journal"), collector.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(config.PathEnv, file)
	t.Setenv(asToolEnv, "1") // for the processes that are started
	cfg, report := config.Load("", os.Getenv)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Export.Shipper = self
	var log keepertest.Log
	k := export.NewKeeper(cfg, log.Printf)
	defer k.Close(0)
	j, err := journal.Open(cfg.Journal.Dir, journal.Options{Shipped: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	client := k.Client(j)
	spans := []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{TraceId: id(16, 1), SpanId: id(8, 1), Name: "a"}}}}}}
	ship := func() {
		t.Helper()
		before := uploads.Load()
		if err := journaltest.Append(client, spans); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the spans are shipped", func() bool {
			k.Ensure()
			return uploads.Load() > before
		})
	}
	shipper := func() (pid int) {
		children, _ := filepath.Glob("/proc/self/task/*/children")
		for _, list := range children {
			text, _ := os.ReadFile(list)
			for field := range strings.FieldsSeq(string(text)) {
				line, _ := os.ReadFile("/proc/" + field + "/cmdline")
				env, _ := os.ReadFile("/proc/" + field + "/environ")
				if strings.HasSuffix(string(line), "\x00collect\x00") && strings.Contains(string(env), file) {
					pid, _ = strconv.Atoi(field)
				}
			}
		}
		return pid
	}
	defer func() {
		if pid := shipper(); pid != 0 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}()
	ship()
	first := shipper()
	if first == 0 {
		t.Fatal("there is no shipper")
	}
	testkit.Stop(t, first)
	ship()
	if now := shipper(); now == first || now == 0 {
		t.Errorf("shipper %d, before %d", now, first)
	}
	// On a busy machine its end may take as long as if it were stuck.
	if lines := strings.Join(log.All(), "\n"); !strings.Contains(lines, fmt.Sprintf("the collecting process, process %d, is stopped", first)) {
		t.Errorf("log %q", lines)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Processes",
		Fault: "`shimtrace collect` is stopped (SIGSTOP) while it ships",
		Pod:   "nothing",
		Lost:  "nothing: a relay replaces it a few seconds later",
	})
}
