package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func TestListEmpty(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	command(t, nil, "list", "--journal", dir).want(t, console.Nothing, "", dir)
}

// TestListJournalOfConfiguration: without --journal, the configured one is read.
func TestListJournalOfConfiguration(t *testing.T) {
	dir := writeJournal(t, sandbox{id: "web", trace: "1"})
	file := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(file, []byte("[journal]\ndir = \""+dir+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, map[string]string{"SHIMTRACE_CONFIG": file}, "list").want(t, console.OK, "web", "")
}

func TestList(t *testing.T) {
	dir := writeJournal(t,
		sandbox{id: "late", container: "late", trace: "2", after: time.Hour, failed: true},
		sandbox{id: "early", pod: "web-0", namespace: "default", trace: "1"},
	)
	r := command(t, nil, "list", "--journal", dir)
	r.want(t, console.OK, "default/web-0", "")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if len(lines) != 3 || !strings.Contains(lines[1], "early") || !strings.Contains(lines[2], "late") {
		t.Fatalf("want a header and two lines, the newest last:\n%s", r.stdout)
	}
	if f := strings.Fields(lines[2]); strings.Join(f[len(f)-5:], " ") != "runc 200ms 200ms 2 1" {
		t.Errorf("want runtime, startup, duration, spans and errors at the end: %q", lines[2])
	}

	r = command(t, nil, "list", "--journal", dir, "--limit", "1", "--json")
	r.want(t, console.OK, `"sandbox":"late"`, "")
	var s struct {
		Startup       time.Duration `json:"startup_ns"`
		Spans, Errors int
		Containers    []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil {
		t.Fatalf("%v: %s", err, r.stdout)
	}
	if s.Spans != 2 || s.Errors != 1 || s.Startup != 200*time.Millisecond || s.Containers[0].Name != "late" {
		t.Errorf("got %+v", s)
	}
	command(t, nil, "list", "--journal", dir, "--limit", "1").want(t, console.OK, "late", "1 older")
}

// TestListReportsLosses: losses are reported on stderr, by reason.
func TestListReportsLosses(t *testing.T) {
	dir := writeJournal(t, sandbox{id: "web", trace: "1"})
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	lost := j.Losses(losses.Ours)
	lost.Add(losses.QueueFull, 3)
	lost.Add(losses.DiskFull, 4)
	lost.Add(losses.Retention, 5)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	segments, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	f, err := os.OpenFile(segments[len(segments)-1], os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 77)); err != nil {
		t.Fatal(err)
	}
	r := command(t, nil, "list", "--journal", dir)
	r.want(t, console.OK, "web", "7 spans lost (disk_full: 4, queue_full: 3)")
	r.want(t, console.OK, "web", "5 spans older than")
	r.want(t, console.OK, "web", "77 bytes of")
}
