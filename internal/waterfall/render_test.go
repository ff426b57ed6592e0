package waterfall

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
)

var update = flag.Bool("update", false, "rewrite the golden files from what is drawn now")

// golden compares a picture with testdata/<name>.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

func draw(t *testing.T, spans []*tracepb.ResourceSpans, o Options) []byte {
	t.Helper()
	story, tree := only(spans)
	if o.Location == nil {
		o.Location = time.UTC
	}
	var b bytes.Buffer
	if err := Render(&b, story, tree, o); err != nil {
		t.Fatal(err)
	}
	if !o.Color && bytes.ContainsRune(b.Bytes(), '\x1b') {
		t.Error("a plain picture has an escape sequence")
	}
	for i, line := range strings.Split(stripEscapes(b.String()), "\n") {
		if w := Width(line); w > max(o.Width, minWidth) {
			t.Errorf("line %d has %d cells, the terminal %d: %q", i+1, w, o.Width, line)
		}
	}
	return b.Bytes()
}

func TestWidths(t *testing.T) {
	for _, width := range []int{60, 80, 120, 200} {
		golden(t, fmt.Sprintf("pod-%d.txt", width), draw(t, kataPod().Spans, Options{Width: width}))
	}
}

func TestColor(t *testing.T) {
	golden(t, "pod-color.txt", draw(t, kataPod().Spans, Options{Width: 100, Color: true}))
}

func TestVerbose(t *testing.T) {
	golden(t, "pod-verbose.txt", draw(t, kataPod().Spans, Options{Width: 100, Verbose: true}))
}

// TestUnfinished draws a pod that is still starting: its root and one of the agent's
// spans are missing.
func TestUnfinished(t *testing.T) {
	s := &script{}
	shim, agent := resourceOf("containerd-shim-kata-v2"), resourceOf(names.AgentScope)
	s.Span(shim, "s", "start", "root", names.ShimStart, 0, 310*ms)
	s.Span(shim, "s", "inner", "start", "inner start", 1*ms, 300*ms)
	s.Span(shim, "s", "create", "root", task+"Create", 320*ms, 80*ms)
	s.Span(agent, "s", "mount", "never", "mount_storage", 350*ms, 20*ms)
	golden(t, "unfinished.txt", draw(t, s.Spans, Options{Width: 80}))
}

// joined is a pod whose calls are in the traces of containerd's requests.
func joined() *script {
	s := &script{}
	shim, agent := resourceOf("containerd-shim-kata-v2"), resourceOf(names.AgentScope)
	s.Span(shim, "s", "root", "", names.SandboxStart, 0, 500*ms)
	s.Span(shim, "s", "start", "root", names.ShimStart, 0, 100*ms)
	s.Span(shim, "run", "create", "containerd create", task+"Create", 110*ms, 300*ms, linked("s", "root"))
	s.Span(agent, "run", "agent create", "create", "create_sandbox", 200*ms, 150*ms)
	s.Span(shim, "run", "run", "containerd start", task+"Start", 420*ms, 70*ms, linked("s", "root"))
	s.Span(shim, "stop", "kill", "containerd kill", task+"Kill", 900*ms, 20*ms, linked("s", "root"))
	return s
}

func TestJoined(t *testing.T) {
	golden(t, "joined.txt", draw(t, joined().Spans, Options{Width: 80}))
}

func TestUnicode(t *testing.T) {
	s := &script{}
	res := resourceOf("containerd-shim-runc-v2")
	s.Span(res, "s", "root", "", names.SandboxStart, 0, 100*ms)
	for i, name := range []string{
		"容器を起動する、そして待つ、それから終わる、本当に終わる", "e\u0301tat " + strings.Repeat("e\u0301", 60),
		"👩‍👩‍👧‍👦 family 🇩🇪", "zalgo" + strings.Repeat("\u0336", 500), "زمان", "", "bad \xff utf-8"[:4],
	} {
		s.Span(res, "s", fmt.Sprint("u", i), "root", name, time.Duration(10*i)*ms, 10*ms)
	}
	golden(t, "unicode.txt", draw(t, s.Spans, Options{Width: 60}))
}

// TestHostile draws what a guest might send to take over the terminal.
func TestHostile(t *testing.T) {
	s := &script{}
	res := resourceOf("evil\x1b[31m")
	s.Span(res, "s", "root", "", "\x1b]0;title\x07\x1b[2J\r\nforged line", 0, 100*ms,
		with(attr("k\x1b[A", "v\u009b31m\u202egnp.exe\u2066\u200b\x7f")), event("\x1bc", 0),
		wrong("\x1b[1m", "message\x1b[0m\rover\u2028written"))
	for _, color := range []bool{false, true} {
		out := draw(t, s.Spans, Options{Width: 80, Verbose: true, Color: color})
		if text := stripEscapes(string(out)); strings.ContainsAny(text, "\x1b\r\x07\x7f\u009b\u202e\u2066\u200b\u2028") {
			t.Errorf("control characters got through: %q", text)
		}
	}
}

// TestSkewedClocks: a span without times, of 1970 or of the far future does not hide
// the others.
func TestSkewedClocks(t *testing.T) {
	s := joined()
	agent := resourceOf(names.AgentScope)
	at := func(start, end uint64) change {
		return func(s *tracepb.Span) { s.StartTimeUnixNano, s.EndTimeUnixNano = start, end }
	}
	s.Span(agent, "s", "timeless", "root", "no time", 0, 0, at(0, 0))
	s.Span(agent, "s", "old", "root", "clock not set", 0, 0, at(1e9, 2e9))
	s.Span(agent, "s", "back", "root", "ends before it starts", 300*ms, 0, func(s *tracepb.Span) { s.EndTimeUnixNano -= 1e9 })
	s.Span(agent, "s", "far", "root", "far future", 0, 0, at(1<<63, 1<<64-1))
	golden(t, "skewed.txt", draw(t, s.Spans, Options{Width: 100}))
}

// TestDeepAndMany: a chain of many levels, and more spans than are drawn, give bounded
// lines.
func TestDeepAndMany(t *testing.T) {
	s := &script{}
	res := resourceOf("containerd-shim-runc-v2")
	const n = 2 * maxRows
	for i := range n {
		parent := ""
		if i > 0 {
			parent = fmt.Sprint(i - 1)
		}
		s.Span(res, "s", fmt.Sprint(i), parent, "level", time.Duration(i), time.Duration(n-i))
	}
	out := draw(t, s.Spans, Options{Width: 80})
	if lines := bytes.Count(out, []byte("\n")); lines > maxRows+10 {
		t.Errorf("%d lines are drawn", lines)
	}
	if want := fmt.Sprintf("%d spans more not drawn", n-maxRows); !bytes.Contains(out, []byte(want)) {
		t.Errorf("the picture does not say %q", want)
	}
}

func TestManyGaps(t *testing.T) {
	s := &script{}
	res := resourceOf("containerd-shim-runc-v2")
	s.Span(res, "s", "root", "", names.SandboxStart, 0, 500*ms)
	for i := range 200 {
		s.Span(res, "s", fmt.Sprint(i), "root", task+"Exec", time.Duration(i+1)*time.Minute, 5*ms)
	}
	out := string(draw(t, s.Spans, Options{Width: 80}))
	_, line, _ := strings.Cut(out, "\n"+names.SandboxStart)
	line, _, _ = strings.Cut(line, "\n")
	if got := strings.Count(line, "━"); got < 10 {
		t.Errorf("the start has %d cells left beside the gaps: %q", got, line)
	}
}
