package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
)

const longID = "4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1a1f0c6ab4f2a9c1b7e3055d1"

var shown = []sandbox{
	{id: longID, pod: "web-0", namespace: "default", container: "app", trace: "1"},
	{id: "4f2ab", container: "db", trace: "2", after: time.Minute},
	{id: "again", container: "job", trace: "3", after: 2 * time.Minute},
	{id: "again", container: "job", trace: "4", after: 3 * time.Minute, failed: true},
}

func TestShow(t *testing.T) {
	dir := writeJournal(t, shown...)
	trace := hex.EncodeToString(shown[2].traceID())
	for query, want := range map[string]string{
		"": "sandbox again", longID: "default/web-0", "4f2a9": "default/web-0", "web-0": "default/web-0",
		"default/web-0": "default/web-0", "app": "default/web-0", "db": "sandbox 4f2ab", "4f2ab": "sandbox 4f2ab",
		"eb-": "default/web-0", "default/we": "default/web-0",
		trace: "trace " + trace, strings.ToUpper(trace[:12]): "trace " + trace,
	} {
		t.Run(query, func(t *testing.T) {
			r := command(t, nil, strings.Fields("show --journal "+dir+" --width 100 "+query)...)
			r.want(t, console.OK, want, "")
			r.want(t, console.OK, "Task/Create", "")
			if strings.Contains(r.stdout, "\x1b") {
				t.Error("escape sequences although stdout is no terminal")
			}
		})
	}
}

func TestShowLatestError(t *testing.T) {
	dir := writeJournal(t, shown...)
	command(t, nil, "show", "--journal", dir).want(t, console.OK, "✗ no such image", "")
	command(t, nil, "show", "--journal", dir, "-v").want(t, console.OK, "container.name = job", "")
}

func TestShowAmbiguous(t *testing.T) {
	dir := writeJournal(t, shown...)
	for query, candidates := range map[string]int{"again": 2, "job": 2, "4f2a": 2} {
		r := command(t, nil, "show", "--journal", dir, query)
		r.want(t, console.Usage, "", "by its trace id")
		if got := strings.Count(r.stderr, "runc"); got != candidates {
			t.Errorf("%q: %d candidates, want %d:\n%s", query, got, candidates, r.stderr)
		}
	}
}

func TestShowNothing(t *testing.T) {
	command(t, nil, "show", "--journal", writeJournal(t, shown...), "nosuch").want(t, console.Nothing, "", "shimtrace list")
	command(t, nil, "show", "--journal", t.TempDir()).want(t, console.Nothing, "", "has no spans yet")
}

func TestShowJSON(t *testing.T) {
	r := command(t, nil, "show", "--journal", writeJournal(t, shown...), "--json", "web-0")
	r.want(t, console.OK, hex.EncodeToString(shown[0].traceID()), "")
	var doc struct {
		ResourceSpans []struct {
			ScopeSpans []struct {
				Spans []struct{ TraceID, Name string }
			}
		}
	}
	if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.ResourceSpans) != 1 || len(doc.ResourceSpans[0].ScopeSpans[0].Spans) != 2 {
		t.Errorf("want the two spans of one sandbox: %s", r.stdout)
	}
}

// TestShowOneOfManyContainers: a pod is found by any of its containers, however many it
// has.
func TestShowOneOfManyContainers(t *testing.T) {
	pod := sandbox{id: "pod", pod: "web-0", namespace: "default", trace: "1"}
	spans := pod.spans()
	scope := spans[0].ScopeSpans[0]
	call := scope.Spans[1]
	for i := range 500 {
		s := proto.CloneOf(call)
		s.SpanId[7], s.SpanId[6] = byte(i), byte(i>>8)
		s.Attributes = []*commonpb.KeyValue{text("container.id", fmt.Sprintf("%012x", i+1)), text("container.name", fmt.Sprint("job-", i))}
		scope.Spans = append(scope.Spans, s)
	}
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := journaltest.Append(j, spans); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{"job-64", "job-499", fmt.Sprintf("%012x", 65), fmt.Sprintf("%012x", 500)} {
		command(t, nil, "show", "--journal", dir, query).want(t, console.OK, "default/web-0", "")
	}
	command(t, nil, "show", "--journal", dir, "job-500").want(t, console.Nothing, "", "job-500")
}

// TestShowAll draws spans that are folded otherwise.
func TestShowAll(t *testing.T) {
	pod := sandbox{id: "pod", trace: "1"}
	spans := pod.spans()
	scope := spans[0].ScopeSpans[0]
	parent := scope.Spans[1].SpanId
	for i := range 4 {
		s := proto.CloneOf(scope.Spans[1])
		s.Name, s.SpanId, s.ParentSpanId = fmt.Sprint("mount ", i), bytes.Clone(parent), parent
		s.SpanId[0] ^= byte(i + 1)
		s.EndTimeUnixNano = s.StartTimeUnixNano + 1000
		scope.Spans = append(scope.Spans, s)
		if i == 0 {
			parent = s.SpanId
		}
	}
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := journaltest.Append(j, spans); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	r := command(t, nil, "show", "--journal", dir)
	r.want(t, console.OK, "+3 mount 1, mount 2, mount 3", "")
	r.want(t, console.OK, "--all draws them", "")
	r = command(t, nil, "show", "--journal", dir, "--all")
	r.want(t, console.OK, "mount 3", "")
	if strings.Contains(r.stdout, "+3") {
		t.Errorf("--all folds: %s", r.stdout)
	}
}

// TestFilters: list and show select by what the flags name.
func TestFilters(t *testing.T) {
	dir := writeJournal(t, shown...)
	for args, want := range map[string]string{
		"--pod web-*": "default/web-0", "--pod default/web-0": "default/web-0", "--container db": "4f2ab", "--container d?": "4f2ab", "--errors": "again",
		"--since 2026-08-12T10:02:30Z": "again", "--min 100ms --pod web-0": "default/web-0",
	} {
		r := command(t, nil, append(strings.Fields("list --json --journal "+dir), strings.Fields(args)...)...)
		r.want(t, console.OK, strings.TrimPrefix(want, "default/"), "")
		if n := strings.Count(r.stdout, "\n"); n != 1 {
			t.Errorf("list %s: %d stories, want 1", args, n)
		}
		command(t, nil, append(strings.Fields("show --journal "+dir), strings.Fields(args)...)...).want(t, console.OK, want, "")
	}
	for _, args := range []string{"--pod other", "--container nope", "--since 2026-08-13"} {
		for _, name := range []string{"list", "show"} {
			command(t, nil, append([]string{name, "--journal", dir}, strings.Fields(args)...)...).want(t, console.Nothing, "", "the filters leave nothing")
		}
	}
	for _, args := range []string{"--pod [", "--since yesterday", "--min -1s", "--since -3h"} {
		command(t, nil, append([]string{"list", "--journal", dir}, strings.Fields(args)...)...).want(t, console.Usage, "", "")
	}
	// Of the spans, those that the filter leaves out are folded.
	r := command(t, nil, "show", "--journal", dir, "--errors", "--width", "100")
	r.want(t, console.OK, "✗ no such image", "")
	r = command(t, nil, "show", "--journal", dir, "--min", "100ms", "web-0")
	r.want(t, console.OK, "+1 Task/Create", "")
	r.want(t, console.OK, "1 span folded that the filters leave out", "")
}

// TestPage: a page goes to a file, whole and private, or to stdout; what is there and no
// file stays.
func TestPage(t *testing.T) {
	dir, out := writeJournal(t, shown...), filepath.Join(t.TempDir(), "a.html")
	command(t, nil, "show", "--journal", dir, "--html", out, "web-0").want(t, console.OK, "", out)
	page, err := os.ReadFile(out)
	if err != nil || !bytes.Contains(page, []byte("default/web-0")) || !bytes.HasSuffix(page, []byte("</html>\n")) {
		t.Errorf("the page: %v, %d bytes", err, len(page))
	}
	command(t, nil, "show", "--journal", dir, "--html", "-").want(t, console.OK, "<!doctype html>", "")
	command(t, nil, "show", "--journal", dir, "--html", os.DevNull).want(t, console.OK, "", "")
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode().IsRegular() {
		t.Fatal(os.DevNull, "is a file now", err)
	}
	command(t, nil, "show", "--journal", dir, "--html", out, "nosuch").want(t, console.Nothing, "", "nosuch")
	if again, _ := os.ReadFile(out); !bytes.Equal(page, again) {
		t.Error("a page that could not be written replaced another")
	}
	if left, _ := filepath.Glob(filepath.Dir(out) + "/.shimtrace-*"); len(left) > 0 {
		t.Errorf("left: %s", left)
	}
	command(t, nil, "show", "--journal", dir, "--html", "-", "--open").want(t, console.Usage, "", "--open needs a file")
	command(t, nil, "show", "--journal", dir, "--html", out, "--json").want(t, console.Usage, "", "choose one")
	for _, args := range []string{"--open --json", "--open --follow", "--diff --open a b", "--diff --follow a b"} {
		command(t, nil, append([]string{"show", "--journal", dir}, strings.Fields(args)...)...).want(t, console.Usage, "", "choose one")
	}
	command(t, nil, "show", "--journal", dir, "--html", out+"/no/such", "web-0").want(t, console.Usage, "", "there is no directory")
	command(t, nil, "show", "--journal", dir, "--html", out, "--open").want(t, console.Failure, "", "copy "+out)
}

// TestOpen: the browser that the environment names gets the page.
func TestOpen(t *testing.T) {
	dir, at := writeJournal(t, shown...), t.TempDir()
	browser := filepath.Join(at, "browser")
	if err := os.WriteFile(browser, []byte("#!/bin/sh\ncp \"$1\" "+at+"/opened\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", at)
	command(t, map[string]string{"BROWSER": browser}, "show", "--journal", dir, "--open", "web-0").want(t, console.OK, "", "trace.html")
	if page, err := os.ReadFile(at + "/opened"); err != nil || !bytes.Contains(page, []byte("web-0")) {
		t.Error("the browser got no page:", err)
	}
}

func TestPerfetto(t *testing.T) {
	dir := writeJournal(t, shown...)
	r := command(t, nil, "show", "--journal", dir, "--perfetto", "-", "web-0")
	r.want(t, console.OK, "Task/Create", "")
	r.want(t, console.OK, "containerd-shim-runc-v2", "")
}

func TestStats(t *testing.T) {
	dir := writeJournal(t, shown...)
	r := command(t, nil, "stats", "--journal", dir)
	r.want(t, console.OK, "runc: 3 starts, 1 failed or unfinished", "")
	r.want(t, console.OK, "  start  ", "")
	command(t, nil, "stats", "--journal", dir, "--json", "--pod", "web-*").want(t, console.OK, `"runtime":"runc","phase":"start","starts":1,"p50_ns":150000000`, "")
	command(t, nil, "stats", "--journal", dir, "--pod", "nope").want(t, console.Nothing, "", "filters")
	command(t, nil, "stats", "--journal", t.TempDir()).want(t, console.Nothing, "", "no spans yet")
	command(t, nil, "stats", "extra").want(t, console.Usage, "", "")
}

func TestDiff(t *testing.T) {
	dir := writeJournal(t, shown...)
	r := command(t, nil, "show", "--diff", "--journal", dir, "web-0", "db")
	r.want(t, console.OK, "A  default/web-0", "")
	r.want(t, console.OK, "B  db", "")
	command(t, nil, "show", "--diff", "--journal", dir, "--json", "web-0", "web-0").want(t, console.OK, `"change": "same"`, "")
	command(t, nil, "show", "--diff", "--journal", dir, "web-0").want(t, console.Usage, "", "two sandboxes")
	command(t, nil, "show", "--diff", "--journal", dir, "web-0", "nosuch").want(t, console.Nothing, "", "nosuch")
	command(t, nil, "show", "--diff", "--journal", dir, "--html", "x", "web-0", "db").want(t, console.Usage, "", "choose one")
}
