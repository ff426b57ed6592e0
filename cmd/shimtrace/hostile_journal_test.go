package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

const (
	// hostileBytes is about the size of a hostile journal. wholeEnv makes it as large
	// as the default, 64 MiB.
	hostileBytes = 8 << 20
	wholeEnv     = "SHIMTRACE_TEST_WHOLE_JOURNALS"
	// hostileMemory bounds the reader's resident memory.
	hostileMemory = 100 << 20
	// hostilePatience is a bound against hangs.
	hostilePatience = 2 * time.Minute
)

// flood generates the spans of a hostile journal: span number n, from 1 on.
type flood func(n uint64, s *tracepb.Span)

func id(length int, n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, length-8, length), n)
}

// floods are journals of hostile guests, who control only spans, and worse ones that
// only the host could write.
var floods = map[string]flood{
	"a million tiny spans": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
	},
	"a million traces": func(n uint64, s *tracepb.Span) {
		s.TraceId, s.SpanId = id(16, n), id(8, n)
	},
	"names that are never the same": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.Name = id(8, n), strings.Repeat(string(id(8, n)[7]&0x3f+'0'), 900)+time.Duration(n).String()
	},
	"one chain": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.ParentSpanId = id(8, n), id(8, n-1)
	},
	"circles": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.ParentSpanId = id(8, n), id(8, n&^0xff|(n+1)&0xff)
	},
	"every span its own parent": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.ParentSpanId = id(8, n), id(8, n)
	},
	"one id": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.ParentSpanId = id(8, 1), id(8, 1)
	},
	"parents that never come": func(n uint64, s *tracepb.Span) {
		s.SpanId, s.ParentSpanId = id(8, n), id(8, n+1<<40)
	},
	"links everywhere": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
		for i := range uint64(8) {
			s.Links = append(s.Links, &tracepb.Span_Link{TraceId: id(16, 8*n+i), SpanId: id(8, 1)})
		}
	},
	"huge attributes": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
		s.Attributes = []*commonpb.KeyValue{text("container.id", strings.Repeat("x", 500<<10))}
	},
	"arrays of booleans": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
		values := make([]*commonpb.AnyValue, 50_000)
		for i := range values {
			values[i] = new(commonpb.AnyValue)
		}
		s.Attributes = []*commonpb.KeyValue{{Key: "container.id", Value: &commonpb.AnyValue{
			Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: values}},
		}}}
	},
	"events": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
		for i := range 1000 {
			s.Events = append(s.Events, &tracepb.Span_Event{TimeUnixNano: uint64(i)})
		}
	},
	"the year 2140": func(n uint64, s *tracepb.Span) {
		s.SpanId = id(8, n)
		s.StartTimeUnixNano += 114 * 365 * 24 * 3600 * 1e9
	},
}

// victim is the sandbox of the hostile guest.
var victim = sandbox{id: "victim", trace: "1", pod: "web-0", namespace: "default"}

// writeFlood returns the directory of a journal with a flood from one sandbox's agent,
// after the two spans of the sandbox's start.
func writeFlood(t *testing.T, f flood, size int) string {
	t.Helper()
	dir := writeJournal(t, victim)
	j, err := journal.Open(dir, journal.Options{MaxBytes: 2 * int64(size)})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	res := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{text("service.name", "kata-agent"), text("shimtrace.sandbox.id", victim.id)}}
	res.Attributes = append(res.Attributes, victim.spans()[0].Resource.Attributes[2:]...)
	start := uint64(time.Date(2026, 8, 12, 10, 0, 0, 0, time.UTC).UnixNano())
	for n, written := uint64(1), 0; written < size && n < 1<<20; {
		var spans []*tracepb.Span
		for batch := 0; batch < 512<<10; n++ {
			s := &tracepb.Span{Name: "x", TraceId: victim.traceID(), StartTimeUnixNano: start + n}
			f(n, s)
			bytes := 40 + len(s.Name) + 30*len(s.Links) + 14*len(s.Events)
			for _, kv := range s.Attributes {
				bytes += len(kv.GetValue().GetStringValue()) + 2*len(kv.GetValue().GetArrayValue().GetValues())
			}
			batch, written = batch+bytes, written+bytes
			spans = append(spans, s)
		}
		if err := journaltest.Append(j, []*tracepb.ResourceSpans{{Resource: res, ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "kata-agent"}, Spans: spans,
		}}}}); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestHostileJournals reads journals meant to exhaust their readers, by list and show:
// memory is bounded, and the host's spans are still shown.
func TestHostileJournals(t *testing.T) {
	size := hostileBytes
	switch {
	case os.Getenv(wholeEnv) != "":
		size = 64 << 20
	case raceDetector: // it uses more memory, and takes ten times as long
		size = 1 << 20
	}
	for name, f := range floods {
		t.Run(name, func(t *testing.T) {
			dir := writeFlood(t, f, size)
			measured(t, "default/web-0", "list", "--journal", dir, "--limit", "0")
			trace := hex.EncodeToString(victim.traceID())
			measured(t, "\nsandbox start", "show", "--journal", dir, trace)
			measured(t, "\nsandbox start", "show", "--journal", dir, trace, "-v", "--all")
			measured(t, `"sandbox start"`, "show", "--journal", dir, trace, "--json")
		})
	}
}

// measured runs the tool as a process, in bounded memory and time; its output must
// begin with the text.
func measured(t *testing.T, want string, args ...string) {
	t.Helper()
	p := newTool(t, "", args...)
	out, report := &head{most: 1 << 20}, filepath.Join(t.TempDir(), "memory")
	p.cmd.Stdout = out
	p.cmd.Env = append(p.cmd.Env, memoryEnv+"="+report)
	began := time.Now()
	kill := time.AfterFunc(hostilePatience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	err := p.cmd.Run()
	took := time.Since(began)
	if err != nil {
		t.Fatalf("%s: %v after %v: %s", args[0], err, took, p.stderr.String())
	}
	said, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	memory, err := strconv.Atoi(string(said))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d MB, %v, %v of processor time, %d bytes of output", args[0], memory>>20, took.Round(time.Millisecond),
		(p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Round(time.Millisecond), out.size)
	if memory > hostileMemory && !raceDetector {
		t.Errorf("%s took %d MB", args[0], memory>>20)
	}
	if !bytes.Contains(out.text, []byte(want)) {
		t.Errorf("%s does not print %q: %.2000s", args[0], want, out.text)
	}
}

// head keeps the beginning of the output.
type head struct {
	most, size int
	text       []byte
}

func (h *head) Write(b []byte) (int, error) {
	h.size += len(b)
	h.text = append(h.text, b[:min(len(b), h.most-len(h.text))]...)
	return len(b), nil
}

// memoryEnv names a file to which the tool writes its peak resident memory in bytes
// before it ends. The figure that the kernel gives a parent includes the parent's own.
const memoryEnv = "SHIMTRACE_TEST_MEMORY"

func reportMemory(file string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return errors.New("the kernel does not tell VmHWM")
	}
	kilobytes, err := strconv.Atoi(fields[0])
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strconv.Itoa(kilobytes<<10)), 0o600)
}
