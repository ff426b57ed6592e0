package agent

import (
	"bytes"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// secret is in the environment of the captures' containers.
const secret = "hunter2"

// otlp decodes frames into one batch.
func otlp(tb testing.TB, frames []byte, opts Options) (batch []byte) {
	tb.Helper()
	d := NewDecoder(opts)
	var s span.Span
	for _, p := range payloads(tb, frames) {
		if err := d.Decode(p, &s); err != nil {
			tb.Fatal(err)
		}
		batch = s.AppendOTLP(batch)
	}
	return batch
}

func TestNoSecretLeavesByDefault(t *testing.T) {
	for _, name := range []string{capture328, capture410, capture410rs} {
		frames := testdata(t, name+".frames")
		if n := bytes.Count(otlp(t, frames, Options{}), []byte(secret)); n > 0 {
			t.Errorf("%s: the secret came out %d times", name, n)
		}
		if n := bytes.Count(otlp(t, frames, Options{Options: span.Options{Keep: []string{"*"}, MaxValue: 1 << 20, MaxCost: 1 << 30}}), []byte(secret)); n != bytes.Count(frames, []byte(secret)) {
			t.Errorf("%s: with redaction off the secret came out %d times, it is there %d times", name, n, bytes.Count(frames, []byte(secret)))
		}
	}
}

// TestTextsAreReduced: an agent's error texts and event names hold no values that may be
// secret, unless everything is kept.
func TestTextsAreReduced(t *testing.T) {
	text := jsonSpan(`"status_code":"Error","status_message":"create: env SECRET=hunter2 {a: hunter2}: EPERM\nhunter2",` +
		`"events":{"queue":[{"name":"exec SECRET=hunter2 in c1","timestamp":{"secs_since_epoch":1,"nanos_since_epoch":2},"attributes":[]}]}`)
	counters := &Counters{Losses: new(losses.Tally)}
	m := decodeProto(t, text, Options{Counters: counters})
	if m.Status.Message != "create: env SECRET=… {…}: EPERM" || m.Events[0].Name != "exec SECRET=… in c1" || counters.Reduced.Load() != 2 {
		t.Errorf("%q, %q, %d reduced", m.Status.Message, m.Events[0].Name, counters.Reduced.Load())
	}
	m = decodeProto(t, text, Options{Options: span.Options{Keep: []string{"*"}}})
	if !bytes.Contains([]byte(m.Status.Message), []byte("\nhunter2")) || m.Events[0].Name != "exec SECRET=hunter2 in c1" {
		t.Errorf("kept: %q, %q", m.Status.Message, m.Events[0].Name)
	}
}

func TestKeep(t *testing.T) {
	attrs := `"self":{"String":"12345"},"cid":{"String":"c"},"code.lineno":{"I64":7},"codex":{"Bool":true},` +
		`"container.id":{"String":"spoofed"},"shimtrace.exec.id":{"String":"spoofed"}`
	for _, tc := range []struct {
		name string
		keep []string
		want string
	}{
		{"default", nil, "cid code.lineno codex.size container.id.size self.size shimtrace.exec.id.size"},
		{"nothing", []string{}, "cid.size code.lineno.size codex.size container.id.size self.size shimtrace.exec.id.size"},
		{"all but the host's own", []string{"*"}, "cid code.lineno codex container.id.size self shimtrace.exec.id.size"},
		{"prefix", []string{"code*"}, "cid.size code.lineno codex container.id.size self.size shimtrace.exec.id.size"},
		{"exact", []string{"self", "container.id"}, "cid.size code.lineno.size codex.size container.id.size self shimtrace.exec.id.size"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := decodeProto(t, jsonSpan(`"attributes":{"map":{`+attrs+`}}`), Options{Options: span.Options{Keep: tc.keep}})
			if got := keys(m.Attributes); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestRequestIDs(t *testing.T) {
	for _, tc := range []struct{ req, container, exec string }{
		{`ExecProcessRequest { container_id: "c.1", exec_id: "e-2", string_user: None`, "c.1", "e-2"},
		{`container_id: "c" exec_id: "e" signal: 9`, "c", "e"},
		{`SignalProcessRequest { container_id: "c", exec_id: "c", signal: 9`, "c", ""},
		{`SignalProcessRequest { container_id: "c", exec_id: "", signal: 9`, "c", ""},
		{`RemoveContainerRequest { container_id: "c", timeout: 0`, "c", ""},
		{`DestroySandboxRequest { special_fields: x`, "", ""},
		{`X { container_id: "c d", exec_id: "e"`, "", ""},
		{`X { other: "", container_id: "c", exec_id: "e"`, "", ""},
		{`not a name { container_id: "c"`, "", ""},
		{`X { container_id: "c`, "", ""},
		{``, "", ""},
	} {
		container, exec := requestIDs([]byte(tc.req))
		if string(container) != tc.container || string(exec) != tc.exec {
			t.Errorf("%s: %q, %q", tc.req, container, exec)
		}
	}
}

// The ids are also in fields of the span, for its place in the trace.
func TestSpanHasIDs(t *testing.T) {
	var s span.Span
	p := jsonSpan(`"attributes":{"map":{"req":{"String":"X { container_id: \"c\", exec_id: \"e\" }"}}}`)
	if err := NewDecoder(Options{}).Decode([]byte(p), &s); err != nil {
		t.Fatal(err)
	}
	if s.ContainerID != "c" || s.ExecID != "e" {
		t.Errorf("got %q, %q", s.ContainerID, s.ExecID)
	}
}

func decodeProto(t *testing.T, payload string, opts Options) *tracepb.Span {
	t.Helper()
	var s span.Span
	if err := NewDecoder(opts).Decode([]byte(payload), &s); err != nil {
		t.Fatal(err)
	}
	m := message(t, &s)
	return m
}
