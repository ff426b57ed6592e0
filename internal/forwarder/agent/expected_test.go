package agent

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/losses"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// expected is a line that integration/rust/golden writes for a frame, with the agent's crates.
type expected struct {
	Encoding          string
	Undecodable       string
	Context           expectedContext
	Parent            string
	Kind              string
	Name              string
	Start, End        uint64
	Attributes        map[string]expectedValue
	DroppedAttributes uint32 `json:"dropped_attributes"`
	Events            []expectedItem
	DroppedEvents     uint32 `json:"dropped_events"`
	Links             []expectedItem
	DroppedLinks      uint32 `json:"dropped_links"`
	Status            string
	Message           string
}

type expectedContext struct {
	TraceID    string `json:"trace_id"`
	SpanID     string `json:"span_id"`
	Flags      uint32
	Remote     bool
	TraceState string `json:"trace_state"`
}

// expectedItem is an event or a link.
type expectedItem struct {
	Name              string
	Time              uint64
	Context           expectedContext
	Attributes        map[string]expectedValue
	DroppedAttributes uint32 `json:"dropped_attributes"`
}

type expectedValue struct {
	Bool   *bool
	Int    *int64
	Double string // bits, in hexadecimal
	String *string
	Array  []expectedValue
}

func readExpected(t *testing.T, data []byte) (all []expected) {
	t.Helper()
	for line := range bytes.Lines(data) {
		var e expected
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// asExpected converts a decoded span to expected.
func asExpected(t *testing.T, payload []byte, s *span.Span) expected {
	t.Helper()
	m := message(t, s)
	e := expected{
		Encoding: EncodingOf(payload).String(),
		Context: expectedContext{
			TraceID: hex.EncodeToString(m.TraceId), SpanID: hex.EncodeToString(m.SpanId),
			Flags: m.Flags, TraceState: m.TraceState,
		},
		Parent:            "0000000000000000",
		Kind:              map[tracepb.Span_SpanKind]string{1: "internal", 2: "server", 3: "client", 4: "producer", 5: "consumer"}[m.Kind],
		Name:              m.Name,
		Start:             m.StartTimeUnixNano,
		End:               m.EndTimeUnixNano,
		Attributes:        asValues(t, m.Attributes),
		DroppedAttributes: m.DroppedAttributesCount,
		Events:            []expectedItem{},
		DroppedEvents:     m.DroppedEventsCount,
		Links:             []expectedItem{},
		DroppedLinks:      m.DroppedLinksCount,
		Status:            map[tracepb.Status_StatusCode]string{0: "unset", 1: "ok", 2: "error"}[m.GetStatus().GetCode()],
		Message:           m.GetStatus().GetMessage(),
	}
	if len(m.ParentSpanId) > 0 {
		e.Parent = hex.EncodeToString(m.ParentSpanId)
	}
	for _, ev := range m.Events {
		e.Events = append(e.Events, expectedItem{
			Name: ev.Name, Time: ev.TimeUnixNano,
			Attributes: asValues(t, ev.Attributes), DroppedAttributes: ev.DroppedAttributesCount,
		})
	}
	for _, l := range m.Links {
		if l.Flags&0x100 == 0 {
			t.Error("a link does not say whether it is remote")
		}
		e.Links = append(e.Links, expectedItem{
			Context: expectedContext{
				TraceID: hex.EncodeToString(l.TraceId), SpanID: hex.EncodeToString(l.SpanId),
				Flags: l.Flags & 0xff, Remote: l.Flags&0x200 != 0, TraceState: l.TraceState,
			},
			Attributes: asValues(t, l.Attributes), DroppedAttributes: l.DroppedAttributesCount,
		})
	}
	return e
}

func asValues(t *testing.T, kvs []*commonpb.KeyValue) map[string]expectedValue {
	t.Helper()
	out := make(map[string]expectedValue, len(kvs))
	for _, kv := range kvs {
		if _, ok := out[kv.Key]; ok {
			t.Errorf("attribute %q twice", kv.Key)
		}
		out[kv.Key] = asValue(kv.Value)
	}
	return out
}

func asValue(v *commonpb.AnyValue) (e expectedValue) {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_BoolValue:
		e.Bool = &v.BoolValue
	case *commonpb.AnyValue_IntValue:
		e.Int = &v.IntValue
	case *commonpb.AnyValue_DoubleValue:
		e.Double = fmt.Sprintf("%016x", math.Float64bits(v.DoubleValue))
	case *commonpb.AnyValue_StringValue:
		e.String = &v.StringValue
	case *commonpb.AnyValue_ArrayValue:
		e.Array = []expectedValue{}
		for _, element := range v.ArrayValue.GetValues() {
			e.Array = append(e.Array, asValue(element))
		}
	}
	return e
}

// checkExpected decodes frames and compares every span with the expected one.
func checkExpected(t *testing.T, frames []byte, want []expected, opts Options) {
	t.Helper()
	opts.Counters = &Counters{Losses: new(losses.Tally)}
	d := NewDecoder(opts)
	all := payloads(t, frames)
	if len(all) != len(want) {
		t.Fatalf("%d frames, expected %d", len(all), len(want))
	}
	for i, p := range all {
		var s span.Span
		if err := d.Decode(p, &s); err != nil {
			t.Errorf("frame %d: %v", i, err)
			continue
		}
		w := want[i]
		got := asExpected(t, p, &s)
		if got.Encoding != w.Encoding {
			t.Errorf("frame %d: taken for %s, is %s", i, got.Encoding, w.Encoding)
		}
		if w.Undecodable != "" {
			continue // TestNotFiniteJSON
		}
		w.Context.Remote = false // OTLP has no field for a span's own
		if opts.Keep == nil {
			w.Message = errtext.Reduce(w.Message)
			w.Events = slices.Clone(w.Events)
			for j := range w.Events {
				w.Events[j].Name = errtext.Reduce(w.Events[j].Name)
			}
		}
		if !reflect.DeepEqual(got, w) {
			t.Errorf("frame %d:\n got %s\nwant %s", i, show(got), show(w))
		}
	}
	if n := opts.Counters.Spans.Load(); n != uint64(len(all)) {
		t.Errorf("counted %d spans of %d", n, len(all))
	}
}

func show(v any) string {
	b, _ := json.Marshal(v)
	return string(b[:min(len(b), 3000)])
}

func TestCaptures(t *testing.T) {
	for _, tc := range []struct {
		name     string
		spans    int
		encoding Encoding
	}{
		{capture328, 60, Bincode},
		{capture410, 168, JSON},
		{capture410rs, 122, JSON},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := readExpected(t, testdata(t, tc.name+".expected"))
			if len(want) != tc.spans {
				t.Fatalf("%d spans expected, the capture has %d", len(want), tc.spans)
			}
			if slices.ContainsFunc(want, func(e expected) bool { return e.Encoding != tc.encoding.String() }) {
				t.Errorf("not all are %s", tc.encoding)
			}
			checkExpected(t, testdata(t, tc.name+".frames"), want, Options{})
		})
	}
}

func TestGolden(t *testing.T) {
	const uncut = 1 << 20
	for _, name := range []string{goldenBin, goldenJSON} {
		frames := testdata(t, name+".frames")
		t.Run(name, func(t *testing.T) {
			checkExpected(t, frames, readExpected(t, testdata(t, name+".expected")), Options{Options: span.Options{MaxValue: uncut, MaxCost: uncut}})
		})
		t.Run(name+" all kept", func(t *testing.T) {
			checkExpected(t, frames, readExpected(t, testdata(t, name+".expected-all")), Options{Options: span.Options{MaxValue: uncut, MaxCost: uncut, Keep: []string{"*"}}})
		})
	}
}
