package endpoint

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// FuzzDecode: whatever comes, the outcome is an error or spans within the limits that
// a relay takes and that hold nothing but what may leave.
func FuzzDecode(f *testing.F) {
	for _, body := range bodies(f, captureGo)[:8] {
		f.Add(body)
	}
	f.Add(bodies(f, captureRust)[0])
	f.Add(batch("kata",
		plainSpan("handler_task_message", list(10, stringTag("req", `StartProcess(ContainerProcess { container_id: ContainerID { container_id: "c" }, exec_id: "e"`), doubleTag("d", 1), binaryTag("b", "x"))),
		plainSpan("n", list(6, structure(number(1, 0), long(2, 1), long(3, 0), long(4, 9))), list(11, structure(long(1, 5), list(2, stringTag("event", "e"), boolTag("x", true))))),
	))
	opts := Options{MaxSpans: 20, Span: span.Options{MaxValue: 64, MaxAttributes: 8, MaxEvents: 3, MaxLinks: 3}}
	d := NewDecoder(opts)
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		_, spans, err := d.Decode(body)
		if !bytes.Equal(body, before) {
			t.Fatal("the body was changed")
		}
		if err != nil {
			var be *bodyError
			if !errors.As(err, &be) || be.Offset < 0 || be.Offset > len(body) || spans != nil {
				t.Fatal(err)
			}
			return
		}
		if len(spans) > opts.MaxSpans {
			t.Fatalf("%d spans", len(spans))
		}
		size := 0
		for i := range spans {
			s := &spans[i]
			b := s.Append(nil)
			size += len(b)
			if got, err := span.Parse(b); err != nil || !bytes.Equal(got.Append(nil), b) {
				t.Fatal(err)
			}
			m := message(t, s)
			if len(m.Name) > 64 || len(m.GetStatus().GetMessage()) > 64 || len(m.Events) > 3 || len(m.Links) > 3 {
				t.Fatal("a limit is passed")
			}
			checkAttributes(t, m.Attributes)
			for _, e := range m.Events {
				checkAttributes(t, e.Attributes)
			}
		}
		if size > 6*len(body)+256 {
			t.Fatalf("%d bytes became %d", len(body), size)
		}
	})
}

func checkAttributes(t *testing.T, all []*commonpb.KeyValue) {
	if len(all) > 8 {
		t.Fatalf("%d attributes", len(all))
	}
	for _, kv := range all {
		if len(kv.Value.GetStringValue()) > 128 {
			t.Fatalf("%s is too long", kv.Key)
		}
		if strings.HasSuffix(kv.Key, ".size") && kv.Value.GetIntValue() >= 0 || kv.Key == "container.id" || kv.Key == "shimtrace.exec.id" {
			continue
		}
		kept := false
		for _, k := range span.DefaultKeep() {
			prefix, any := strings.CutSuffix(k, "*")
			kept = kept || kv.Key == k || any && strings.HasPrefix(kv.Key, prefix)
		}
		if !kept {
			t.Fatalf("%s left", kv.Key)
		}
	}
}
