package doctor

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/status"
)

// TestWaiting: what waits for a target is what status says: not read, held, or set aside.
// What is removed or kept out as configured is not lost.
func TestWaiting(t *testing.T) {
	p := newPlace(t)
	p.put("etc/shimtrace/config.toml", "[journal]\ndir = \"/j\"\n[export]\nendpoint = \"http://127.0.0.1:1\"\n", 0o600)
	dir := filepath.Join(p.root, "j")
	j := journal.New(dir, journal.Options{})
	write := func(n int) {
		t.Helper()
		spans := make([]*tracepb.Span, n)
		for i := range spans {
			spans[i] = &tracepb.Span{Name: "x"}
		}
		if err := journaltest.Append(j, []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}); err != nil {
			t.Fatal(err)
		}
	}
	f := journal.Follow(dir, journal.Cursor{})
	defer f.Close()
	read := func() journal.Range {
		t.Helper()
		r, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		return journal.Range{Position: journal.Position{Segment: r.Segment, Offset: r.Offset}, End: r.End(), Spans: r.Spans}
	}
	for _, n := range []int{1, 2, 4, 8} { // shipped, held, set aside, unread
		write(n)
	}
	read()
	c := journal.Cursor{Held: []journal.Range{read()}, Aside: []journal.Range{read()}}
	c.Position = f.Cursor().Position
	if err := journal.WriteCursor(dir, "", c); err != nil {
		t.Fatal(err)
	}
	j.Losses(losses.Ours).Add(losses.Retention, 3)
	j.LoseTo("two", losses.KeptOut, 5)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	found := journals(t.Context(), newSite(p.options()))
	for _, want := range []string{
		"14 spans wait for the target",
		"removed or kept out as configured: retention: 3, two: kept_out: 5",
	} {
		if !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.What, want) }) {
			t.Errorf("nothing found of %q in %+v", want, found)
		}
	}
	for _, f := range found {
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
	}
	cfg := config.Config{Journal: config.Journal{Dir: dir, MaxBytes: 1 << 20}, Export: config.Export{Target: config.Target{Endpoint: "http://127.0.0.1:1"}}}
	l := &status.Looker{StateDir: t.TempDir(), Journals: []config.Config{cfg}, Wait: time.Minute}
	got := l.Look(t.Context()).Journals[0].Targets[0]
	if got.Waiting != 14 || got.Aside != 4 {
		t.Errorf("status: %+v", got)
	}
}
