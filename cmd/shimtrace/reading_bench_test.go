package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/waterfall/storytest"
)

// journalBytes is about the default of journal.max_bytes.
const journalBytes = 64 << 20

// writePods returns the directory of a journal full of real pods, in batches as relays
// write them, and the number of its spans.
func writePods(tb testing.TB, size int64) (dir string, spans int) {
	tb.Helper()
	dir = tb.TempDir()
	j, err := journal.Open(dir, journal.Options{MaxBytes: 2 * size})
	if err != nil {
		tb.Fatal(err)
	}
	defer j.Close()
	pod := storytest.Captured(storytest.Pods[0])
	for n, written := uint64(1), 0; int64(written) < size; n++ {
		next := storytest.Another(pod, n)
		for _, rs := range next.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for len(ss.Spans) > 0 {
					const batch = 64
					part := ss.Spans[:min(batch, len(ss.Spans))]
					ss.Spans = ss.Spans[len(part):]
					record := []*tracepb.ResourceSpans{{Resource: rs.Resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: ss.Scope, Spans: part}}}}
					if err := journaltest.Append(j, record); err != nil {
						tb.Fatal(err)
					}
					written += proto.Size(record[0])
					spans += len(part)
				}
			}
		}
	}
	return dir, spans
}

// BenchmarkReading runs the tool on a journal of 64 MiB, full of pods: the time of the
// whole process, and its peak resident memory.
func BenchmarkReading(b *testing.B) {
	dir, spans := writePods(b, journalBytes)
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for _, args := range []string{"list", "list --json --limit 0", "show", "show --all -v", "show --json", "explain", "explain --json"} {
		b.Run(strings.ReplaceAll(args, " ", "_"), func(b *testing.B) {
			report := filepath.Join(b.TempDir(), "memory")
			var most int
			var used time.Duration
			for b.Loop() {
				tool := exec.Command(self, append(strings.Fields(args), "--journal", dir)...)
				tool.Env = []string{asToolEnv + "=1", memoryEnv + "=" + report, "SHIMTRACE_CONFIG=/dev/null"}
				if err := tool.Run(); err != nil {
					b.Fatalf("%s: %v", args, err)
				}
				text, err := os.ReadFile(report)
				if err != nil {
					b.Fatal(err)
				}
				memory, err := strconv.Atoi(string(text))
				if err != nil {
					b.Fatal(err)
				}
				most = max(most, memory)
				used += tool.ProcessState.UserTime() + tool.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(most>>20), "MB-peak")
			b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(spans), "spans")
		})
	}
}
