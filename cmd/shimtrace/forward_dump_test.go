package main

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/names"
)

// TestForwardDump: one line of OTLP/JSON per span, changed only to hide what must not
// be seen, and nothing stored.
func TestForwardDump(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	p := startForward(t, "[journal]\ndir = \"/proc/none\"\n", "--socket-path", socket, "--dump-only")
	connectAgent(t, socket)
	eventually(t, "all spans are printed", func() bool { return strings.Count(p.stdout.String(), "\n") == capturedSpans })
	p.stop()
	if strings.Contains(p.stdout.String(), "hunter2") {
		t.Error("a container's secret is printed")
	}
	lines := bufio.NewScanner(strings.NewReader(p.stdout.String()))
	lines.Buffer(nil, 1<<20)
	seen := make(map[string]int)
	for lines.Scan() {
		span := otlpLine(t, lines.Text())
		seen[span.Name]++
		if len(span.TraceId) != 16 || len(span.SpanId) != 8 || span.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
			t.Fatalf("ids or kind are not what they were: %s", lines.Text())
		}
	}
	if seen["create_container"] != 3 || seen["stats_container"] == 0 || seen[names.LostAgentSpan] > 0 {
		t.Errorf("spans are %v", seen)
	}
}

// otlpLine parses a document strictly by the OTLP specification.
func otlpLine(t *testing.T, line string) *tracepb.Span {
	t.Helper()
	ids := regexp.MustCompile(`"(traceId|spanId|parentSpanId)":"([^"]*)"`)
	asProto := ids.ReplaceAllStringFunc(line, func(m string) string {
		parts := ids.FindStringSubmatch(m)
		id, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatalf("%s is not hexadecimal", m)
		}
		return fmt.Sprintf("%q:%q", parts[1], base64.StdEncoding.EncodeToString(id))
	})
	var doc tracepb.TracesData
	if err := protojson.Unmarshal([]byte(asProto), &doc); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	if len(doc.ResourceSpans) != 1 || len(doc.ResourceSpans[0].ScopeSpans) != 1 || len(doc.ResourceSpans[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("not one span: %s", line)
	}
	return doc.ResourceSpans[0].ScopeSpans[0].Spans[0]
}

// TestForwardDumpToNobody: it ends when stdout has no reader.
func TestForwardDumpToNobody(t *testing.T) {
	vms := t.TempDir()
	socket := sandboxDir(t, vms, "vm")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	p := newForward(t, "", "--socket-path", socket, "--dump-only")
	p.cmd.Stdout = full
	p.start()
	_, _ = sendAsAgent(t, socket) // it may end at the first span
	p.ends(console.Failure)
	p.says("print a span")
}
