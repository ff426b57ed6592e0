package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
)

// newCollector returns a collector that takes everything, and its number of uploads.
func newCollector(t *testing.T) (url string, uploads *atomic.Int64) {
	t.Helper()
	uploads = new(atomic.Int64)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		uploads.Add(1)
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	}))
	t.Cleanup(s.Close)
	return s.URL, uploads
}

// record records a sandbox's spans.
func record(t *testing.T, dir string) {
	t.Helper()
	j, err := journal.Open(dir, journal.Options{Shipped: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := journaltest.Append(j, shown[0].spans()); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCollectShipsEachJournal: the same process ships a runtime's own journal to that
// runtime's collector.
func TestCollectShipsEachJournal(t *testing.T) {
	dir := t.TempDir()
	common, uploads := newCollector(t)
	own, ownUploads := newCollector(t)
	config := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[export]\nendpoint = %q\n"+
		"[runtime.kata.journal]\ndir = %q\n[runtime.kata.export]\nendpoint = %q\n[runtime.runc.trace]\nmode = \"static\"\n",
		filepath.Join(dir, "state"), filepath.Join(dir, "a"), common, filepath.Join(dir, "b"), own)
	record(t, filepath.Join(dir, "a"))
	record(t, filepath.Join(dir, "b"))
	p := newTool(t, config, "collect", "--idle", "500ms")
	p.start()
	p.ends(console.OK)
	if uploads.Load() != 1 || ownUploads.Load() != 1 {
		t.Errorf("%d uploads to the common collector, %d to the runtime's own", uploads.Load(), ownUploads.Load())
	}
	if n := strings.Count(p.stderr.String(), "2 spans shipped"); n == 0 {
		t.Errorf("said %s", p.stderr.String())
	}
}

// TestCollectFollowsExport: after a change of the configuration, a running process
// ships new spans to the new target; a broken file changes nothing.
func TestCollectFollowsExport(t *testing.T) {
	dir := t.TempDir()
	first, uploads := newCollector(t)
	second, later := newCollector(t)
	config := fmt.Sprintf("[relay]\nstate_dir = %q\n[journal]\ndir = %q\n[export]\nendpoint = %q\n", filepath.Join(dir, "state"), filepath.Join(dir, "journal"), first)
	p := newTool(t, config, "collect", "--idle", "0s")
	p.start()
	record(t, filepath.Join(dir, "journal"))
	eventually(t, "it is shipped", func() bool { return uploads.Load() == 1 })
	for _, text := range []string{"[export\n", strings.Replace(config, first, second, 1) + "# another length\n"} {
		p.rewrite(text)
		if text == "[export\n" {
			p.says("configuration")
			before := uploads.Load()
			record(t, filepath.Join(dir, "journal"))
			eventually(t, "it is shipped as before", func() bool { return uploads.Load() > before })
		}
	}
	before := uploads.Load()
	eventually(t, "it is shipped to the other one", func() bool {
		record(t, filepath.Join(dir, "journal"))
		return later.Load() > 0
	})
	if n := uploads.Load() - before; n > 0 {
		t.Logf("%d uploads until the change was seen", n)
	}
	p.stop()
}

// TestOlderNames: ship and receive name their new name.
func TestOlderNames(t *testing.T) {
	url, uploads := newCollector(t)
	env := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}
	dir := t.TempDir()
	record(t, dir)
	for _, name := range []string{"ship", "receive", "collect"} {
		r := command(t, env, name, "--once", "--journal", dir)
		r.want(t, console.OK, "", "shipped")
		if said := strings.Contains(r.stderr, name+" is an older name of shimtrace collect"); said != (name != "collect") {
			t.Errorf("%s: %s", name, r.stderr)
		}
		command(t, nil, name, "--help").want(t, console.OK, "Examples:", "")
	}
	if uploads.Load() != 1 {
		t.Errorf("%d uploads", uploads.Load())
	}
}
