package endpoint

import (
	"bytes"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

func textAttribute(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func otlpSpan(id byte, name string, attributes ...*commonpb.KeyValue) *tracepb.Span {
	return &tracepb.Span{
		TraceId: bytes.Repeat([]byte{1}, 16), SpanId: bytes.Repeat([]byte{id}, 8), Name: name, Flags: 0x301,
		StartTimeUnixNano: 1_800_000_000_000_000_001, EndTimeUnixNano: 1_800_000_000_000_000_999, Attributes: attributes,
	}
}

func otlpBody(t testing.TB, spans ...*tracepb.Span) []byte {
	t.Helper()
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: spans}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDecodeOTLP: a runtime's spans in OTLP say the same as those that it posts to
// Jaeger, and keep no more.
func TestDecodeOTLP(t *testing.T) {
	create := otlpSpan(2, "create", textAttribute("package", "containerdshim"), textAttribute("container_id", "c"),
		textAttribute("sandbox_id", "s"), textAttribute("spec", "SECRET=hunter2"))
	create.Kind, create.ParentSpanId = tracepb.Span_SPAN_KIND_SERVER, bytes.Repeat([]byte{9}, 8)
	create.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: `exec: "nope": SECRET=hunter2`}
	create.Events = []*tracepb.Span_Event{{Name: "e", TimeUnixNano: 5, Attributes: []*commonpb.KeyValue{textAttribute("env", "SECRET=hunter2")}}}
	create.Links = []*tracepb.Span_Link{{TraceId: bytes.Repeat([]byte{3}, 16), SpanId: bytes.Repeat([]byte{4}, 8)}}
	start := otlpSpan(3, "handler_task_request", textAttribute("req", `StartProcess(ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e" })`))
	http2 := otlpSpan(4, "poll", textAttribute("code.file.path", "/root/.cargo/registry/src/h2/a.rs"))
	lists := otlpSpan(5, "lists", &commonpb.KeyValue{Key: "code.list", Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{
		ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{textAttribute("", "SECRET=hunter2").Value}},
	}}})
	nobody := otlpSpan(0, "nobody")
	c := &Counters{Losses: new(losses.Tally)}
	spans, err := NewDecoder(Options{Counters: c}).DecodeOTLP(otlpBody(t, create, start, http2, lists, nobody))
	if err != nil || len(spans) != 3 {
		t.Fatal(len(spans), err)
	}
	got := spans[0]
	if got.Method != "Create" || got.Sandbox != "s" || got.ContainerID != "c" || !got.Failed || got.Kind != tracepb.Span_SPAN_KIND_SERVER ||
		got.Start != create.StartTimeUnixNano || got.End != create.EndTimeUnixNano || got.ParentID != [8]byte(create.ParentSpanId) || got.TraceFlags != 1 {
		t.Errorf("%+v", got)
	}
	m := message(t, &got)
	if len(m.Events) != 1 || m.Events[0].Name != "e" || len(m.Links) != 1 || m.Links[0].SpanId[0] != 4 {
		t.Error(m)
	}
	if got := spans[1]; got.Method != "Start" || got.ContainerID != "c" || got.ExecID != "e" || got.Kind != tracepb.Span_SPAN_KIND_INTERNAL {
		t.Errorf("%+v", got)
	}
	for i := range spans {
		if text := string(spans[i].AppendOTLP(nil)); strings.Contains(text, "hunter2") {
			t.Errorf("%s: a secret leaves: %q", spans[i].Name, text)
		}
	}
	if c.Exporter.Load() != 1 || c.Losses.Of(losses.NoIdentity) != 1 {
		t.Error(c.Exporter.Load(), c.Losses.Counts())
	}
}

// FuzzDecodeOTLP: FuzzDecode, for OTLP.
func FuzzDecodeOTLP(f *testing.F) {
	f.Add(otlpBody(f, otlpSpan(1, "handler_task_message", textAttribute("req", `StartProcess(ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e"`))))
	opts := Options{MaxSpans: 20, Span: span.Options{MaxValue: 64, MaxAttributes: 8, MaxEvents: 3, MaxLinks: 3}}
	d := NewDecoder(opts)
	f.Fuzz(func(t *testing.T, body []byte) {
		spans, err := d.DecodeOTLP(body)
		if err != nil {
			return
		}
		if len(spans) > opts.MaxSpans {
			t.Fatalf("%d spans", len(spans))
		}
		for i := range spans {
			b := spans[i].Append(nil)
			if got, err := span.Parse(b); err != nil || !bytes.Equal(got.Append(nil), b) {
				t.Fatal(err)
			}
			m := message(t, &spans[i])
			if len(m.Name) > 64 || len(m.GetStatus().GetMessage()) > 64 || len(m.Events) > 3 || len(m.Links) > 3 {
				t.Fatal("a limit is passed")
			}
			checkAttributes(t, m.Attributes)
			for _, e := range m.Events {
				checkAttributes(t, e.Attributes)
			}
		}
	})
}
