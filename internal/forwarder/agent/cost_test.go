package agent

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// many repeats an element of a JSON list or object, with its index for %d.
func many(n int, element string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = element
		if strings.Contains(element, "%") {
			all[i] = fmt.Sprintf(element, i)
		}
	}
	return strings.Join(all, ",")
}

// A span's cost is at least its memory, whatever its parts are, and not much more.
func TestCost(t *testing.T) {
	attributes := func(list string) string { return `"attributes":{"map":{` + list + `}}` }
	for name, fields := range map[string]string{
		"nothing":       `"name":"n"`,
		"failed":        `"name":"n","status_code":"Error","status_message":"why"`,
		"booleans":      attributes(many(100, `"code.%d":{"Bool":true}`)),
		"numbers":       attributes(many(100, `"code.%d":{"I64":7777777}`)),
		"sizes":         attributes(many(100, `"a%d":{"String":"secret"}`)),
		"texts":         attributes(many(20, `"code.%d":{"String":"`+strings.Repeat("x", 4000)+`"}`)),
		"short texts":   attributes(many(100, `"code.%d":{"String":"x"}`)),
		"long keys":     attributes(many(100, `"code.`+strings.Repeat("k", 200)+`%d":{"I64":1}`)),
		"bool arrays":   attributes(many(10, `"code.%d":{"Array":{"Bool":[`+many(span.MaxElements, "true")+`]}}`)),
		"int arrays":    attributes(many(10, `"code.%d":{"Array":{"I64":[`+many(span.MaxElements, "123456789")+`]}}`)),
		"float arrays":  attributes(many(10, `"code.%d":{"Array":{"F64":[`+many(span.MaxElements, "1.5")+`]}}`)),
		"string arrays": attributes(many(10, `"code.%d":{"Array":{"String":[`+many(span.MaxElements, `""`)+`]}}`)),
		"null arrays":   attributes(many(10, `"code.%d":{"Array":{"F64":[`+many(span.MaxElements, "null")+`]}}`)),
		"events":        `"events":{"queue":[` + many(128, `{}`) + `]}`,
		"full events":   `"events":{"queue":[` + many(10, `{"name":"e","attributes":[`+many(20, `{"key":"code.%d","value":{"Bool":true}}`)+`]}`) + `]}`,
		"links":         `"links":{"queue":[` + many(128, `{"span_context":{"trace_id":1,"span_id":2}}`) + `]}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(Options{})
			var s span.Span
			if err := d.Decode([]byte(jsonSpan(fields)), &s); err != nil {
				t.Fatal(err)
			}
			b := s.AppendOTLP(nil)
			message(t, &s)
			const n = 20
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				if err := proto.Unmarshal(b, new(tracepb.Span)); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			took := int(after.TotalAlloc-before.TotalAlloc) / n
			t.Logf("%d bytes in memory, said to be %d, of %d as OTLP", took, s.Cost(), len(b))
			if s.Cost() < took || s.Cost() > 2*took+(2<<10) {
				t.Errorf("it takes %d bytes, and says %d", took, s.Cost())
			}
			if s.Cost() < len(b) {
				t.Errorf("it has %d bytes, and says %d", len(b), s.Cost())
			}
			parsed, err := span.Parse(s.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Cost() < took {
				t.Errorf("parsed, it takes %d bytes, and says %d", took, parsed.Cost())
			}
		})
	}
}

// Parts beyond MaxCost are dropped like those beyond other limits.
func TestMaxCost(t *testing.T) {
	opts := Options{Options: span.Options{MaxCost: 16 << 10}, Counters: &Counters{Losses: new(losses.Tally)}}
	m := decodeProto(t, jsonSpan(`"name":"n","attributes":{"map":{`+
		many(10, `"code.%d":{"Array":{"Bool":[`+many(span.MaxElements, "true")+`]}}`)+`,"mod":{"String":"m"}}},`+
		`"events":{"queue":[`+many(100, `{"name":"e","attributes":[`+many(2, `{"key":"code.%d","value":{"Bool":true}}`)+`]}`)+`]},`+
		`"links":{"queue":[`+many(100, `{"span_context":{"trace_id":1,"span_id":2}}`)+`]}`), opts)
	if keys(m.Attributes) != "code.0 mod" || m.DroppedAttributesCount != 9 {
		t.Errorf("attributes %s, %d dropped", keys(m.Attributes), m.DroppedAttributesCount)
	}
	if n := len(m.Events); n == 0 || n == 100 || int(m.DroppedEventsCount) != 100-n {
		t.Errorf("%d events, %d dropped", n, m.DroppedEventsCount)
	}
	if n := len(m.Links); int(m.DroppedLinksCount) != 100-n {
		t.Errorf("%d links, %d dropped", n, m.DroppedLinksCount)
	}
	for _, name := range []string{capture328, capture410, capture410rs} {
		d := NewDecoder(Options{})
		for _, p := range payloads(t, testdata(t, name+".frames")) {
			var s span.Span
			if err := d.Decode(p, &s); err != nil {
				t.Fatal(err)
			}
			if s.Cost() > 16<<10 {
				t.Errorf("a real span costs %d bytes", s.Cost())
			}
		}
	}
}
