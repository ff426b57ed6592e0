package endpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/otlpvalue"
)

func decodeAll(tb testing.TB, name string, opts Options) (services map[string]int, spans []span.Span) {
	tb.Helper()
	d := NewDecoder(opts)
	services = make(map[string]int)
	for i, body := range bodies(tb, name) {
		before := bytes.Clone(body)
		service, some, err := d.Decode(body)
		if err != nil {
			tb.Fatalf("%s, body %d: %v", name, i, err)
		}
		if !bytes.Equal(body, before) {
			tb.Fatalf("%s, body %d: was changed", name, i)
		}
		clear(body) // no part of it may be kept
		services[service]++
		spans = append(spans, some...)
	}
	return services, spans
}

// Every span of the captures is there, and says what another reader reads.
func TestCaptures(t *testing.T) {
	for _, tc := range []struct {
		name, service  string
		bodies         int
		kept, exporter int
		parentless     int
	}{
		{captureGo, "kata", 349, 349, 0, 1},
		{captureRust, "kata-sb-c58a3c91", 8, 229, 569, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := Counters{Losses: new(losses.Tally)}
			services, spans := decodeAll(t, tc.name, Options{Counters: &c})
			if len(services) != 1 || services[tc.service] != tc.bodies {
				t.Errorf("services %v", services)
			}
			if len(spans) != tc.kept || c.Spans.Load() != uint64(tc.kept) || c.Exporter.Load() != uint64(tc.exporter) {
				t.Errorf("%d spans, %d counted, %d of the exporter's", len(spans), c.Spans.Load(), c.Exporter.Load())
			}
			for _, r := range losses.All() {
				if n := c.Losses.Of(r); n > 0 {
					t.Errorf("%d lost: %s", n, r)
				}
			}
			var wire []wireStruct
			for _, body := range bodies(t, tc.name) {
				for _, s := range parseWire(body).list(2) {
					file, _ := s.tags()["code.filepath"].(string)
					if file == "" || strings.HasPrefix(file, "src/") { // Kata's own tree
						wire = append(wire, s)
					}
				}
			}
			if len(wire) != len(spans) {
				t.Fatalf("%d spans, the other reader has %d", len(spans), len(wire))
			}
			parentless := 0
			for i := range spans {
				compare(t, &spans[i], wire[i])
				if spans[i].ParentID == [8]byte{} {
					parentless++
				}
			}
			if parentless != tc.parentless {
				t.Errorf("%d spans without a parent, want %d", parentless, tc.parentless)
			}
		})
	}
}

func compare(t *testing.T, s *span.Span, w wireStruct) {
	t.Helper()
	be := binary.BigEndian
	if be.Uint64(s.TraceID[8:]) != uint64(w.long(1)) || be.Uint64(s.TraceID[:8]) != uint64(w.long(2)) ||
		be.Uint64(s.SpanID[:]) != uint64(w.long(3)) || be.Uint64(s.ParentID[:]) != uint64(w.long(4)) {
		t.Errorf("%s: ids %x %x %x", s.Name, s.TraceID, s.SpanID, s.ParentID)
	}
	if s.Name != w.text(5) || s.Start != 1000*uint64(w.long(8)) || s.End != 1000*uint64(w.long(8)+w.long(9)) || s.TraceFlags != 1 {
		t.Errorf("%s: %+v", w.text(5), s)
	}
	m := message(t, s)
	tags := w.tags()
	kind := tracepb.Span_SPAN_KIND_INTERNAL
	if tags["span.kind"] == "client" {
		kind = tracepb.Span_SPAN_KIND_CLIENT
	}
	if m.Kind != kind || m.Status != nil || s.Failed {
		t.Errorf("%s: kind %v, status %v", s.Name, m.Kind, m.Status)
	}
	if len(m.Events) != len(w.list(11)) {
		t.Errorf("%s: %d events", s.Name, len(m.Events))
	}
	want := make(map[string]any)
	for k, v := range tags {
		switch {
		case k == "span.kind" || strings.HasPrefix(k, "otel.library."):
		case slices.Contains(span.DefaultKeep(), k) || strings.HasPrefix(k, "code.") || strings.HasPrefix(k, "thread."):
			want[k] = v
		default:
			if text, ok := v.(string); ok {
				want[k+".size"] = int64(len(text))
			} else {
				want[k+".size"] = int64(1) // the only others are bools
			}
		}
	}
	if s.ContainerID != "" {
		want["container.id"] = s.ContainerID
	}
	if s.ExecID != "" {
		want["shimtrace.exec.id"] = s.ExecID
	}
	got := make(map[string]any)
	for _, kv := range m.Attributes {
		got[kv.Key] = otlpvalue.Plain(kv.Value)
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: attributes %v, want %v", s.Name, got, want)
	}
}

// The calls of the captures' pods, as containerd made them.
func TestMethods(t *testing.T) {
	for name, want := range map[string]string{
		captureGo:   "Connect:8 Create:3 Delete:4 Exec:2 Kill:4 Shutdown:1 Start:5 State:23 Stats:33 Wait:6",
		captureRust: "Connect:12 Create:2 Delete:4 Exec:4 Kill:2 Start:10 State:36 Stats:64 Wait:6",
	} {
		counts := make(map[string]int)
		containers := make(map[string]bool)
		_, spans := decodeAll(t, name, Options{})
		for i := range spans {
			s := &spans[i]
			if s.Method == "" {
				continue
			}
			counts[s.Method]++
			containers[s.ContainerID] = true
			// runtime-rs says for which container, and for Start of an exec which.
			if name == captureRust && s.ContainerID == "" {
				t.Errorf("%s: no container", s.Name)
			}
		}
		var got []string
		for _, m := range slices.Sorted(maps.Keys(counts)) {
			got = append(got, fmt.Sprintf("%s:%d", m, counts[m]))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if n := len(containers); n != map[string]int{captureGo: 1, captureRust: 3}[name] {
			t.Errorf("%s: %d containers: %v", name, n, containers)
		}
	}
}

// Of the Go runtime's spans 48 name the sandbox, an early one among them; one has an
// empty name, which is none.
func TestSandboxes(t *testing.T) {
	const sandbox = "7794eff13c04c4f5dda5c1a3eb5122cd670dd740b1727ce1b5c6ad1d62f675d3"
	_, spans := decodeAll(t, captureGo, Options{})
	n, first := 0, -1
	for i := range spans {
		switch spans[i].Sandbox {
		case sandbox:
			if n++; first < 0 {
				first = i
			}
		case "":
		default:
			t.Errorf("sandbox %q", spans[i].Sandbox)
		}
	}
	if n != 48 || first != 0 {
		t.Errorf("%d spans name the sandbox, the first is %d", n, first)
	}
}

func TestNoSecretLeavesByDefault(t *testing.T) {
	count := func(spans []span.Span) (n int) {
		for i := range spans {
			n += bytes.Count(spans[i].Append(nil), []byte(secret))
		}
		return n
	}
	for _, name := range []string{captureGo, captureRust} {
		there := 0
		for _, body := range bodies(t, name) {
			there += bytes.Count(body, []byte(secret))
		}
		if name == captureRust && there == 0 {
			t.Fatal("the capture has no secret")
		}
		_, spans := decodeAll(t, name, Options{})
		if n := count(spans); n > 0 {
			t.Errorf("%s: the secret came out %d times", name, n)
		}
		_, spans = decodeAll(t, name, Options{Span: span.Options{Keep: []string{"*"}, MaxValue: 1 << 20}})
		if n := count(spans); n != there {
			t.Errorf("%s: with redaction off the secret came out %d times, it is there %d times", name, n, there)
		}
	}
}

// What goes to the relay comes back from it.
func TestCapturesTravel(t *testing.T) {
	for _, name := range []string{captureGo, captureRust} {
		_, spans := decodeAll(t, name, Options{})
		for i := range spans {
			b := spans[i].Append(nil)
			got, err := span.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			if again := got.Append(nil); !bytes.Equal(again, b) || got.Method != spans[i].Method || got.Sandbox != spans[i].Sandbox {
				t.Fatalf("%s, span %d: %+v became %+v", name, i, spans[i], got)
			}
		}
	}
}
