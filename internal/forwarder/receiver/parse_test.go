package receiver

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestParse: a body is divided by services, and no byte of it changes.
func TestParse(t *testing.T) {
	all := []*tracepb.ResourceSpans{
		spansOf("containerd", some(2)...), spansOf("containerd", some(1)...), spansOf("empty"), spansOf("kubelet", some(3)...),
		{ScopeSpans: []*tracepb.ScopeSpans{{Spans: some(1)}}},
	}
	b := body(t, all...)
	p, err := parse(b)
	check(t, err)
	var got []string
	for _, b := range p.batches {
		got = append(got, fmt.Sprintf("%s %d", b.Service, b.Spans))
	}
	if want := "[containerd 3 kubelet 3  1]"; fmt.Sprint(got) != want || p.spans != 7 || p.lost != nil {
		t.Errorf("%v, %d spans, lost %v", got, p.spans, p.lost)
	}
	if first := body(t, all[:2]...); !bytes.Equal(p.batches[0].Data, first) {
		t.Error("two resources of one service are not the bytes that came")
	}
}

// TestInvalidSpans: an invalid span costs itself, whatever is invalid.
func TestInvalidSpans(t *testing.T) {
	noTrace, noID, badParent, badLink, zeroID := spanOf(1), spanOf(2), spanOf(3), spanOf(4), spanOf(5)
	noTrace.TraceId, noID.SpanId, badParent.ParentSpanId, badLink.Links[0].TraceId = nil, nil, []byte{1}, []byte{1, 2}
	zeroID.SpanId = make([]byte, 8)
	deep := spanOf(6)
	v := &commonpb.AnyValue{}
	for range 40 {
		v = &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: &commonpb.ArrayValue{Values: []*commonpb.AnyValue{v}}}}
	}
	deep.Attributes = append(deep.Attributes, &commonpb.KeyValue{Key: "deep", Value: v})
	b := body(t, spansOf("a", spanOf(10), noTrace, badParent, spanOf(11), badLink, deep), spansOf("a", noID, zeroID), spansOf("a", some(2)...))
	// Only other languages' libraries write texts that are not UTF-8.
	notText := body(t, spansOf("b", spanOf(12), spanOf(13)))
	notText[bytes.LastIndex(notText, []byte("RunPodSandbox"))] = 0xff
	b = append(b, notText...)
	p, err := parse(b)
	check(t, err)
	if want := map[losses.Reason]int{losses.NoIdentity: 3, losses.Malformed: 3, losses.NotText: 1}; !maps.Equal(p.lost, want) {
		t.Errorf("lost: %v, want %v", p.lost, want)
	}
	var left []string
	for _, batch := range p.batches {
		var td tracepb.TracesData
		check(t, proto.Unmarshal(batch.Data, &td))
		for _, rs := range td.ResourceSpans {
			for _, s := range rs.ScopeSpans[0].Spans {
				left = append(left, fmt.Sprintf("%s%d", rs.Resource.Attributes[1].Value.GetStringValue(), s.SpanId[7]-1))
			}
			if rs.ScopeSpans[0].Scope.Name != "scope" {
				t.Error("the scope is lost")
			}
		}
	}
	if want := "[a10 a11 a0 a1 b12]"; fmt.Sprint(left) != want {
		t.Errorf("left: %v, want %v", left, want)
	}
}

// TestMalformed: what is wrong outside of spans costs the body, and is not quoted.
func TestMalformed(t *testing.T) {
	good := body(t, spansOf("secret", some(1)...))
	notText := bytes.Replace(bytes.Clone(good), []byte("secret"), []byte("secre\xff"), 1)
	dense := protowire.AppendTag(nil, 1, protowire.BytesType)
	dense = protowire.AppendBytes(dense, bytes.Repeat([]byte{18, 0}, 10000))
	for name, b := range map[string][]byte{
		"cut":      good[:len(good)-1],
		"not text": notText,
		"dense":    dense,
		"text":     []byte("<html>secret</html>"),
		"group":    {0x0b, 0x0c, 0x0c},
	} {
		p, err := parse(b)
		if err == nil {
			t.Errorf("%s: %d batches", name, len(p.batches))
		} else if strings.Contains(err.Error(), "secre") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p, err := parse(nil); err != nil || len(p.batches) != 0 {
		t.Error(p, err)
	}
}

// FuzzParse: whatever comes, the outcome is an error or messages that can be decoded,
// with the number of spans that they are said to have, each of which has ids.
func FuzzParse(f *testing.F) {
	f.Add(body(f, spansOf("a", some(3)...), spansOf("b", some(1)...)))
	f.Add([]byte{10, 4, 18, 2, 18, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		p, err := parse(b)
		if !bytes.Equal(b, before) {
			t.Fatal("the body was changed")
		}
		whole := new(tracepb.TracesData)
		decodes := proto.Unmarshal(b, whole) == nil
		if err != nil {
			return
		}
		if !decodes && p.lost == nil {
			t.Fatal("a body that cannot be decoded is taken")
		}
		spans := 0
		for _, batch := range p.batches {
			n := 0
			td := new(tracepb.TracesData)
			if err := proto.Unmarshal(batch.Data, td); err != nil {
				t.Fatal(err)
			}
			for _, rs := range td.ResourceSpans {
				for _, ss := range rs.ScopeSpans {
					n += len(ss.Spans)
					for _, s := range ss.Spans {
						if len(s.TraceId) != 16 || len(s.SpanId) != 8 || len(s.ParentSpanId)%8 != 0 || zero(s.TraceId) || zero(s.SpanId) {
							t.Fatalf("ids %x %x %x", s.TraceId, s.SpanId, s.ParentSpanId)
						}
					}
				}
			}
			if n != batch.Spans || n == 0 {
				t.Fatalf("%d spans, said to be %d", n, batch.Spans)
			}
			spans += n
		}
		if spans != p.spans {
			t.Fatalf("%d spans, not %d", spans, p.spans)
		}
		lost := 0
		for _, n := range p.lost {
			lost += n
		}
		if decodes {
			for _, rs := range whole.ResourceSpans {
				for _, ss := range rs.ScopeSpans {
					spans -= len(ss.Spans)
				}
			}
			if spans+lost != 0 {
				t.Fatalf("%d spans are neither taken nor lost", -spans-lost)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := body(b, spansOf("containerd", some(512)...))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parse(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(512*b.N)/b.Elapsed().Seconds(), "spans/s")
}
