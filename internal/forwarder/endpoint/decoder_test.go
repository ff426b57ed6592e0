package endpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpvalue"
)

// decodeOne decodes a body of one span.
func decodeOne(t *testing.T, opts Options, span field) (*span.Span, *tracepb.Span) {
	t.Helper()
	_, spans, err := NewDecoder(opts).Decode(batch("kata", span))
	if err != nil {
		t.Fatal(err)
	}
	if len(spans) != 1 {
		t.Fatalf("%d spans", len(spans))
	}
	m := message(t, &spans[0])
	return &spans[0], m
}

func attributesOf(m *tracepb.Span) string {
	var all []string
	for _, kv := range m.Attributes {
		all = append(all, fmt.Sprintf("%s=%v", kv.Key, otlpvalue.Plain(kv.Value)))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestTags(t *testing.T) {
	for _, tc := range []struct {
		name       string
		tags       []field
		keep       []string
		attributes string
		kind       tracepb.Span_SpanKind
		status     tracepb.Status_StatusCode
		message    string
	}{
		{name: "nothing"},
		{
			name:       "kept and not",
			tags:       []field{stringTag("source", "/a"), stringTag("spec", "secret"), longTag("busy_ns", 7), boolTag("hotplug", true), doubleTag("thread.x", 1.5)},
			attributes: "busy_ns=7 hotplug.size=1 source=/a spec.size=6 thread.x=1.5",
		},
		{name: "binary is not", keep: []string{"*"}, tags: []field{binaryTag("b", "xyz"), stringTag("a", "x")}, attributes: "a=x b.size=3"},
		{name: "not text", tags: []field{stringTag("source", "\xff\xfe"), stringTag("mod\xff", "x")}, attributes: "source.size=2"},
		{name: "the host's own", keep: []string{"*"}, tags: []field{stringTag("container.id", "spoofed"), stringTag("shimtrace.placeholder", "x")}, attributes: "container.id.size=7 shimtrace.placeholder.size=1"},
		{name: "what OTLP has fields for", tags: []field{stringTag("otel.library.name", "kata"), stringTag("otel.library.version", "1"), stringTag("otel.scope.name", "x")}},
		{name: "kind", tags: []field{stringTag("span.kind", "server")}, kind: tracepb.Span_SPAN_KIND_SERVER},
		{name: "a kind of no sort", tags: []field{stringTag("span.kind", "x")}},
		{name: "an error as the Go exporter has it", tags: []field{longTag("otel.status_code", 1), stringTag("otel.status_description", "no such thing"), boolTag("error", true)}, status: tracepb.Status_STATUS_CODE_ERROR, message: "no such thing"},
		{name: "an error as the Rust exporter has it", tags: []field{boolTag("error", true), stringTag("otel.status_code", "ERROR"), stringTag("otel.status_description", "bad")}, status: tracepb.Status_STATUS_CODE_ERROR, message: "bad"},
		{name: "an error with a secret", tags: []field{boolTag("error", true), stringTag("otel.status_description", "create: env SECRET=hunter2: EPERM\nhunter2")}, status: tracepb.Status_STATUS_CODE_ERROR, message: "create: env SECRET=…: EPERM"},
		{name: "an error as text", tags: []field{stringTag("error", "true")}, status: tracepb.Status_STATUS_CODE_ERROR},
		{name: "no error", tags: []field{boolTag("error", false)}},
		{name: "ok", tags: []field{longTag("otel.status_code", 2)}, status: tracepb.Status_STATUS_CODE_OK},
		{name: "ok as a word", tags: []field{stringTag("otel.status_code", "OK")}, status: tracepb.Status_STATUS_CODE_OK},
		{name: "an attribute called error", tags: []field{stringTag("error", "it went wrong")}, attributes: "error.size=13"},
		{name: "container", tags: []field{stringTag("container_id", "c-1")}, attributes: "container.id=c-1 container_id=c-1"},
		{name: "a container of no sort", tags: []field{stringTag("container_id", "c 1")}, attributes: "container_id=c 1"},
		{name: "request", tags: []field{stringTag("req", `ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e", process_type: Exec }`)}, attributes: "container.id=c req.size=102 shimtrace.exec.id=e"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, m := decodeOne(t, Options{Span: span.Options{Keep: tc.keep}}, plainSpan("n", list(10, tc.tags...)))
			if got := attributesOf(m); got != tc.attributes {
				t.Errorf("attributes %s, want %s", got, tc.attributes)
			}
			if tc.kind == 0 {
				tc.kind = tracepb.Span_SPAN_KIND_INTERNAL
			}
			if m.Kind != tc.kind || m.GetStatus().GetCode() != tc.status || m.GetStatus().GetMessage() != tc.message {
				t.Errorf("kind %v, status %v", m.Kind, m.Status)
			}
			if s.Failed != (tc.status == tracepb.Status_STATUS_CODE_ERROR) {
				t.Errorf("failed is %v", s.Failed)
			}
		})
	}
}

func TestIdentityAndTimes(t *testing.T) {
	span := func(low, high, id, parent, start, duration int64, more ...field) field {
		return structure(append([]field{long(1, low), long(2, high), long(3, id), long(4, parent), text(5, "n"), number(7, 3), long(8, start), long(9, duration)}, more...)...)
	}
	s, _ := decodeOne(t, Options{}, span(-2, 1, math.MinInt64, -1, 1_700_000_000_000_001, 7))
	if got := fmt.Sprintf("%x %x %x %d %d %d", s.TraceID, s.SpanID, s.ParentID, s.Start, s.End, s.TraceFlags); got !=
		"0000000000000001fffffffffffffffe 8000000000000000 ffffffffffffffff 1700000000000001000 1700000000000008000 1" {
		t.Errorf("got %s", got)
	}
	for _, tc := range []struct {
		start, duration int64
		from, to        uint64
	}{
		{-1, 5, 0, 4000},
		{10, -5, 10_000, 10_000},
		{math.MaxInt64, 1, math.MaxInt64, math.MaxInt64},
		{1, math.MaxInt64, 1000, math.MaxInt64},
		{math.MinInt64, math.MaxInt64, 0, 0},
	} {
		s, _ := decodeOne(t, Options{}, span(1, 0, 1, 0, tc.start, tc.duration))
		if s.Start != tc.from || s.End != tc.to {
			t.Errorf("%d for %d: %d to %d", tc.start, tc.duration, s.Start, s.End)
		}
	}

	c := Counters{Losses: new(losses.Tally)}
	_, spans, err := NewDecoder(Options{Counters: &c}).Decode(batch("kata", span(0, 0, 1, 0, 1, 1), span(1, 0, 0, 0, 1, 1), span(1, 0, 1, 0, 1, 1)))
	if err != nil || len(spans) != 1 || c.Losses.Of(losses.NoIdentity) != 2 {
		t.Errorf("%d spans, %d without identity, %v", len(spans), c.Losses.Of(losses.NoIdentity), err)
	}
}

func TestReferences(t *testing.T) {
	ref := func(kind int32, low, span int64) field {
		return structure(number(1, kind), long(2, low), long(3, 0), long(4, span))
	}
	for _, tc := range []struct {
		name   string
		refs   []field
		parent byte
		links  int
	}{
		{"a parent", []field{ref(0, 1, 9)}, 9, 0},
		{"the first parent", []field{ref(1, 1, 8), ref(0, 1, 9), ref(0, 1, 10)}, 9, 2},
		{"a parent elsewhere", []field{ref(0, 2, 9)}, 0, 1},
		{"none that is one", []field{ref(0, 2, 0), ref(1, 0, 9)}, 0, 0},
	} {
		s, m := decodeOne(t, Options{}, plainSpan("n", list(6, tc.refs...)))
		if s.ParentID != ([8]byte{7: tc.parent}) || len(m.Links) != tc.links {
			t.Errorf("%s: parent %x, links %v", tc.name, s.ParentID, m.Links)
		}
	}
	many := make([]field, 300)
	for i := range many {
		many[i] = ref(1, 5, int64(i+1))
	}
	_, m := decodeOne(t, Options{}, plainSpan("n", list(6, many...)))
	if len(m.Links) != 128 || m.DroppedLinksCount != 172 {
		t.Errorf("%d links, %d dropped", len(m.Links), m.DroppedLinksCount)
	}
}

func TestEvents(t *testing.T) {
	log := func(at int64, fields ...field) field { return structure(long(1, at), list(2, fields...)) }
	_, m := decodeOne(t, Options{Span: span.Options{MaxEvents: 2}}, plainSpan("n", list(11,
		log(7, stringTag("level", "INFO"), stringTag("event", "began"), stringTag("code.filepath", "src/x.rs")),
		log(-1),
		log(9, stringTag("event", "too many")),
	)))
	if len(m.Events) != 2 || m.DroppedEventsCount != 1 {
		t.Fatalf("events %v, %d dropped", m.Events, m.DroppedEventsCount)
	}
	e := m.Events[0]
	if e.Name != "began" || e.TimeUnixNano != 7000 || len(e.Attributes) != 2 || e.Attributes[0].Key != "level.size" || otlpvalue.Plain(e.Attributes[1].Value) != "src/x.rs" {
		t.Errorf("event %v", e)
	}
	if m.Events[1].TimeUnixNano != 0 {
		t.Errorf("event %v", m.Events[1])
	}
}

// The exporter's own spans are recognised by where their code is, in whatever tree it was
// built; Kata's own never are.
func TestExportersOwn(t *testing.T) {
	for _, tc := range []struct {
		file, crate string
		dropped     bool
	}{
		{"/home/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/h2-0.3.27/src/proto/connection.rs", "h2::proto::connection", true},
		{"/usr/share/cargo/registry/h2-0.3.26/src/codec/framed_read.rs", "h2::codec::framed_read", true},
		{"/cargo/registry/src/x/want-0.3/src/lib.rs", "other", true},
		{"vendor/hyper/src/client/mod.rs", "hyper::client", true},
		{"/build/vendor/other/src/lib.rs", "other", true},
		{"/root/.cargo/git/checkouts/other-1/abc/src/lib.rs", "other", true},
		{"src/runtime-rs/crates/runtimes/src/manager.rs", "runtimes::manager", false},
		{"crates/runtimes/src/manager.rs", "runtimes::manager", false},
		{"/build/kata/src/runtime-rs/crates/agent/src/kata/agent.rs", "agent::kata::agent", false},
		{"src/dragonball/src/vm/mod.rs", "dragonball::vm", false},
		{"", "", false},
	} {
		c := Counters{Losses: new(losses.Tally)}
		_, spans, err := NewDecoder(Options{Counters: &c}).Decode(batch("kata", plainSpan("n", list(10, stringTag("code.filepath", tc.file), stringTag("code.namespace", tc.crate)))))
		if err != nil {
			t.Fatal(err)
		}
		if dropped := len(spans) == 0; dropped != tc.dropped || (c.Exporter.Load() == 1) != dropped {
			t.Errorf("%s: dropped is %v, counted %d", tc.file, dropped, c.Exporter.Load())
		}
	}
}

func TestLimits(t *testing.T) {
	tags := make([]field, 0, 200)
	for i := range 200 {
		tags = append(tags, stringTag(fmt.Sprintf("code.%d", i), strings.Repeat("ü", 3000)))
	}
	c := Counters{Losses: new(losses.Tally)}
	wire := span.Options{MaxCost: 4 << 20}
	s, m := decodeOne(t, Options{Counters: &c, Span: wire}, plainSpan(strings.Repeat("n", 5000), list(10, tags...)))
	if len(m.Attributes) != 128 || m.DroppedAttributesCount != 72 || len(otlpvalue.Plain(m.Attributes[0].Value).(string)) != 4096 || len(s.Name) != 4096 {
		t.Errorf("%d attributes, %d dropped, the first is %d bytes, the name %d", len(m.Attributes), m.DroppedAttributesCount, len(otlpvalue.Plain(m.Attributes[0].Value).(string)), len(s.Name))
	}
	if a := &c.Attributes; a.Cut.Load() != 129 || a.Dropped.Load() != 72 {
		t.Errorf("%d cut, %d dropped", a.Cut.Load(), a.Dropped.Load())
	}

	// With all kept, a span can be longer than goes to a relay.
	events := make([]field, 100)
	for i := range events {
		events[i] = structure(list(2, tags[:5]...))
	}
	_, spans, err := NewDecoder(Options{Counters: &c, Span: wire}).Decode(batch("kata", plainSpan("n", list(11, events...)), plainSpan("n")))
	if err != nil || len(spans) != 1 || c.Losses.Of(losses.TooLarge) != 1 {
		t.Errorf("%d spans, %d too long, %v", len(spans), c.Losses.Of(losses.TooLarge), err)
	}

	many := make([]field, 10)
	for i := range many {
		many[i] = plainSpan("n")
	}
	_, spans, err = NewDecoder(Options{MaxSpans: 4, Counters: &c}).Decode(batch(strings.Repeat("k", 500), many...))
	if err != nil || len(spans) != 4 || c.Losses.Of(losses.TooMany) != 6 {
		t.Errorf("%d spans, %d too many, %v", len(spans), c.Losses.Of(losses.TooMany), err)
	}
}

func TestService(t *testing.T) {
	for in, want := range map[string]string{"kata-sb-c58a3c91": "kata-sb-c58a3c91", "": "", "\xff": "", strings.Repeat("k", 300): strings.Repeat("k", 256)} {
		if got, _, err := NewDecoder(Options{}).Decode(batch(in)); got != want || err != nil {
			t.Errorf("%.20q: %q, %v", in, got, err)
		}
	}
	// Whatever else a process says of itself, and whatever comes first.
	body := structure(long(3, 1), list(2, plainSpan("n")), object(4, long(1, 1)), object(1, list(2, stringTag("a", "b")), text(1, "kata")))
	if got, spans, err := NewDecoder(Options{}).Decode(body); got != "kata" || len(spans) != 1 || err != nil {
		t.Errorf("%q, %d spans, %v", got, len(spans), err)
	}
}

func TestMalformed(t *testing.T) {
	whole := batch("kata", plainSpan("n"), plainSpan("n", list(10, stringTag("a", "b"))))
	process := object(1, text(1, "kata"))
	claims := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	for _, tc := range []struct {
		name string
		body []byte
		span int
		want string
	}{
		{"nothing", nil, -1, "at byte 0: the body ends inside a value"},
		{"no fields", []byte{0}, -1, "no process or no spans"},
		{"no spans", structure(process), -1, "no process or no spans"},
		{"JSON", []byte(`{"spans":[]}`), -1, "Unknown data type 123"},
		{"more after it", append(bytes.Clone(whole), 0), -1, fmt.Sprintf("at byte %d: there is more", len(whole))},
		{"cut", whole[:len(whole)-5], 1, "in span 1: the body ends inside a value"},
		{"an incomplete span", structure(process, list(2, plainSpan("n"), structure(long(1, 1), long(2, 2)))), 1, "lacks a required field"},
		{"a list of numbers", structure(process, listOf(2, 8, 1, field{0, 0, 0, 1})), -1, "a list of"},
		{"a claimed list", structure(process, append(header(15, 2), append([]byte{12}, claims(math.MaxInt32)...)...)), -1, "only 1 remaining"},
		{"a negative list", structure(process, append(header(15, 2), append([]byte{12}, claims(-1)...)...)), -1, "negative size"},
		{"a claimed string", structure(process, list(2, plainSpan("n", append(header(11, 5), claims(1<<30)...)))), 0, "a string of 1073741824 bytes, of which"},
		{"a negative string", structure(process, list(2, plainSpan("n", append(header(11, 5), claims(-1)...)))), 0, "a string of -1 bytes"},
		{"a claimed string to skip", structure(process, append(header(11, 9), claims(1<<30)...)), -1, "byte"},
		{"nested too deep", structure(process, append(append(header(12, 9), bytes.Repeat(header(12, 1), 100)...), make([]byte, 101)...)), -1, "Depth limit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Counters{Losses: new(losses.Tally)}
			_, spans, err := NewDecoder(Options{Counters: &c}).Decode(tc.body)
			var be *bodyError
			if !errors.As(err, &be) || spans != nil || be.Span != tc.span || be.Offset < 0 || be.Offset > len(tc.body) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%d spans, %v", len(spans), err)
			}
			if c.Losses.Of(losses.MalformedPost) != 1 || c.Spans.Load() != 0 {
				t.Errorf("%d malformed, %d spans", c.Losses.Of(losses.MalformedPost), c.Spans.Load())
			}
		})
	}
	for n := range whole {
		if _, _, err := NewDecoder(Options{}).Decode(whole[:n]); err == nil {
			t.Fatalf("%d of %d bytes are a body", n, len(whole))
		}
	}
}

// Claimed lengths cost nothing; only arrived bytes do.
func TestClaimsCostNothing(t *testing.T) {
	claim := []byte{12, 0x7f, 0xff, 0xff, 0}
	bodies := [][]byte{
		append(append(structure(object(1))[:0], header(15, 2)...), claim...),
		structure(object(1), list(2, plainSpan("n", append(header(15, 10), claim...)))),
		structure(object(1), list(2, plainSpan("n", append(header(15, 11), claim...)))),
		structure(object(1), list(2, plainSpan("n", append(header(11, 5), 0x7f, 0xff, 0xff, 0xff)))),
		structure(object(1), append(header(11, 77), 0x7f, 0xff, 0xff, 0xff)),
		structure(object(1), append(header(13, 77), 11, 11, 0x7f, 0xff, 0xff, 0xff)),
	}
	d := NewDecoder(Options{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const rounds = 100
	for range rounds {
		for i, body := range bodies {
			if _, _, err := d.Decode(body); err == nil {
				t.Fatalf("body %d is a body", i)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / uint64(rounds*len(bodies)); n > 4<<10 {
		t.Errorf("%d bytes allocated for a body of some hundred", n)
	}
}
