package main

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

// recordedPod returns a journal with the spans of a pod that ran on Kata's runtime-rs.
func recordedPod(t *testing.T) string {
	t.Helper()
	var spans tracepb.TracesData
	if err := proto.Unmarshal(storytest.Captured(storytest.RustPod), &spans); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	j, err := journal.Open(dir, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := journaltest.Append(j, spans.ResourceSpans); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestExplain(t *testing.T) {
	dir := recordedPod(t)
	r := command(t, nil, "explain", "--journal", dir, "--width", "160", "probe-0")
	for _, want := range []string{
		"self time runtime 10.8s", "5.09s between the start of handler_task_request and start_process: see network-rescan",
		"probably runtime-rs polled", "internetworking_model",
	} {
		r.want(t, console.OK, want, "")
	}
	for line := range strings.Lines(r.stdout) {
		if n := len([]rune(line)); n > 161 {
			t.Errorf("%d cells: %s", n, line)
		}
	}

	r = command(t, nil, "explain", "--journal", dir, "--json")
	r.want(t, console.OK, `"id": "network-rescan"`, "")
	var o struct {
		Start  int64 `json:"start_ns"`
		Layers []struct {
			Self int64 `json:"self_ns"`
		}
		Path []struct {
			Length int64 `json:"length_ns"`
		} `json:"critical_path"`
	}
	if err := json.Unmarshal([]byte(r.stdout), &o); err != nil {
		t.Fatal(err)
	}
	var layers, path int64
	for _, l := range o.Layers {
		layers += l.Self
	}
	for _, p := range o.Path {
		path += p.Length
	}
	if o.Start == 0 || layers != o.Start || path != o.Start {
		t.Errorf("a start of %d, layers of %d and a path of %d", o.Start, layers, path)
	}
}

func TestExplainNothing(t *testing.T) {
	dir := recordedPod(t)
	command(t, nil, "explain", "--journal", dir, "nosuch").want(t, console.Nothing, "", "shimtrace list")
	command(t, nil, "explain", "--journal", t.TempDir()).want(t, console.Nothing, "", "has no spans yet")
	command(t, nil, "explain", "--journal", dir, "a", "b").want(t, console.Usage, "", "one argument")
	command(t, nil, "explain", "--width", "-1").want(t, console.Usage, "", "negative")
}
