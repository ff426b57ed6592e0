package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/shimtrace/shimtrace/internal/errtext"
	"github.com/shimtrace/shimtrace/internal/losses"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
)

// jsonSpan is a span with an identity and further fields.
func jsonSpan(fields string) string {
	p := `{"span_context":{"trace_id":7,"span_id":9}`
	if fields != "" {
		p += "," + fields
	}
	return p + "}"
}

// keys returns attributes' keys in order.
func keys(kvs []*commonpb.KeyValue) string {
	var all []string
	for _, kv := range kvs {
		all = append(all, kv.Key)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// JSON leaves the order of fields and white space open, and any character may be escaped.
func TestJSONWrittenOtherwise(t *testing.T) {
	const uncut = 1 << 20
	want := readExpected(t, testdata(t, goldenJSON+".expected"))
	for name, rewrite := range map[string]func([]byte) []byte{
		"sorted and indented": sortedJSON,
		"escaped":             escapedJSON,
		"unknown fields": func(p []byte) []byte {
			return bytes.ReplaceAll(p, []byte(`"span_kind":`), []byte(`"new":{"a":["}\"",{"b":[1.5e3,null,true]}]},"span_kind":`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var frames strings.Builder
			for _, p := range payloads(t, testdata(t, goldenJSON+".frames")) {
				frames.WriteString(frame(string(rewrite(p))))
			}
			checkExpected(t, []byte(frames.String()), want, Options{Options: span.Options{MaxValue: uncut, MaxCost: uncut}})
		})
	}
}

func sortedJSON(p []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	out, err := json.MarshalIndent(v, "\r\n", " \t")
	if err != nil {
		panic(err)
	}
	return append(out, " \n"...)
}

func escapedJSON(p []byte) []byte {
	var out []byte
	for _, r := range string(p) {
		if r < 0x80 {
			out = append(out, byte(r))
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			out = fmt.Appendf(out, `\u%04X`, u)
		}
	}
	return out
}

// A value that JSON cannot write is present, without a value.
func TestNotFiniteJSON(t *testing.T) {
	m := decodeProto(t, jsonSpan(`"attributes":{"map":{"code.nan":{"F64":null},"ninf":{"F64":null},"code.all":{"Array":{"F64":[null,1.0,null]}}}}`), Options{})
	for _, kv := range m.Attributes {
		switch kv.Key {
		case "code.nan":
			if kv.Value.GetValue() != nil {
				t.Errorf("%v", kv)
			}
		case "code.all":
			a := kv.Value.GetArrayValue().GetValues()
			if len(a) != 3 || a[0].GetValue() != nil || a[1].GetDoubleValue() != 1 || a[2].GetValue() != nil {
				t.Errorf("%v", kv)
			}
		case "ninf.size":
			if kv.Value.GetIntValue() != 8 {
				t.Errorf("%v", kv)
			}
		default:
			t.Errorf("%v", kv)
		}
	}
	if len(m.Attributes) != 3 {
		t.Errorf("%d attributes", len(m.Attributes))
	}
}

func TestSurrogates(t *testing.T) {
	for in, want := range map[string]string{
		`\ud83e\udd80`:       "🦀",
		`\uD83E\uDD80!`:      "🦀!",
		`\ud83e`:             "\ufffd",
		`\ud83e!`:            "\ufffd!",
		`\udd80\ud83e`:       "\ufffd\ufffd",
		`\ud83e\ud83e\udd80`: "\ufffd🦀",
		`\ud83e\n`:           "\ufffd\n",
		`\u0000\u00e9`:       "\x00é",
		`\/\b\f\r\t`:         "/\b\f\r\t",
	} {
		m := decodeProto(t, jsonSpan(`"name":"`+in+`","attributes":{"map":{"x":{"String":"`+in+`"}}}`), Options{})
		if m.Name != want || m.Attributes[0].Value.GetIntValue() != int64(len(want)) {
			t.Errorf("%s: %q of %d bytes", in, m.Name, m.Attributes[0].Value.GetIntValue())
		}
	}
}

// A value may come before its key.
func TestJSONValueBeforeKey(t *testing.T) {
	m := decodeProto(t, jsonSpan(`"events":{"queue":[{"attributes":[`+
		`{"value":{"String":"abc"},"key":"cid"},{"value":{"String":"hunter2"},"key":"self"}],"name":"e"}]}`), Options{})
	got := m.Events[0].Attributes
	if keys(got) != "cid self.size" || got[0].Value.GetStringValue() != "abc" || got[1].Value.GetIntValue() != int64(len(secret)) {
		t.Error(got)
	}
}

// A status message is reduced, unless everything is kept.
func TestLongMessages(t *testing.T) {
	text := jsonSpan(`"status_code":"Error","status_message":"` + strings.Repeat("é ", 1000) + `"`)
	m := decodeProto(t, text, Options{Counters: &Counters{Losses: new(losses.Tally)}})
	if n := len(m.Status.GetMessage()); n > errtext.Max || n < errtext.Max/2 {
		t.Errorf("%d bytes of a message", len(m.Status.GetMessage()))
	}
	if m := decodeProto(t, text, Options{Options: span.Options{Keep: []string{"*"}}}); len(m.Status.GetMessage()) != 3000 {
		t.Errorf("%d bytes of a message that is kept", len(m.Status.GetMessage()))
	}
}

func TestLinksThatLeadNowhere(t *testing.T) {
	m := decodeProto(t, jsonSpan(`"links":{"queue":[{"span_context":{"trace_id":0,"span_id":1}},{"span_context":{"trace_id":1,"span_id":0}},{},`+
		`{"span_context":{"trace_id":1,"span_id":1},"dropped_attributes_count":4}],"dropped_count":5}`), Options{})
	if len(m.Links) != 1 || m.DroppedLinksCount != 8 || m.Links[0].DroppedAttributesCount != 4 {
		t.Errorf("%v", m)
	}
}

func TestLimits(t *testing.T) {
	opts := Options{Options: span.Options{MaxAttributes: 2, MaxEvents: 1, MaxLinks: 1}, Counters: &Counters{Losses: new(losses.Tally)}}
	attrs := `"cid":{"I64":1},"mod":{"I64":2},"a":{"I64":3},"b":{"I64":4}`
	event := `{"name":"e","timestamp":{"secs_since_epoch":1,"nanos_since_epoch":2},"attributes":[{"key":"a","value":{"I64":1}},{"key":"b","value":{"I64":1}},{"key":"c","value":{"I64":1}}]}`
	link := `{"span_context":{"trace_id":1,"span_id":1}}`
	m := decodeProto(t, jsonSpan(`"attributes":{"map":{`+attrs+`},"dropped_count":1},"events":{"queue":[`+event+`,`+event+`]},"links":{"queue":[`+link+`,`+link+`]}`), opts)
	if keys(m.Attributes) != "cid mod" || m.DroppedAttributesCount != 3 {
		t.Errorf("attributes: %v, dropped %d", m.Attributes, m.DroppedAttributesCount)
	}
	if len(m.Events) != 1 || m.DroppedEventsCount != 1 || keys(m.Events[0].Attributes) != "a.size b.size" || m.Events[0].DroppedAttributesCount != 1 {
		t.Errorf("events: %v, dropped %d", m.Events, m.DroppedEventsCount)
	}
	if len(m.Links) != 1 || m.DroppedLinksCount != 1 {
		t.Errorf("links: %v, dropped %d", m.Links, m.DroppedLinksCount)
	}
	if n := opts.Counters.Dropped.Load(); n != 2+1+2+1 { // the second event, and its attribute
		t.Errorf("counted %d dropped", n)
	}
}

func TestLongValues(t *testing.T) {
	opts := Options{Options: span.Options{MaxValue: 8, Keep: []string{"*"}}, Counters: &Counters{Losses: new(losses.Tally)}}
	m := decodeProto(t, jsonSpan(`"name":"12345678é","status_code":"Error","status_message":"1234567é","attributes":{"map":{`+
		`"fits":{"String":"1234567\n"},"long":{"String":"1234567\n8"},"wide":{"String":"\t23456🦀"},"`+strings.Repeat("k", span.MaxKey+1)+`":{"I64":1},`+
		`"array":{"Array":{"String":["1234","5678"]}},"longarray":{"Array":{"String":["1234","56789"]}},"empties":{"Array":{"String":["","","","","","","","",""]}}}}`), opts)
	got := map[string]string{"name": m.Name, "message": m.Status.Message}
	for _, kv := range m.Attributes {
		if s, ok := kv.Value.Value.(*commonpb.AnyValue_StringValue); ok {
			got[kv.Key] = s.StringValue
		}
	}
	for key, want := range map[string]string{"name": "12345678", "message": "1234567", "fits": "1234567\n", "long": "1234567\n", "wide": "\t23456"} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
	if k := keys(m.Attributes); k != "array empties.size fits long longarray.size wide" || m.DroppedAttributesCount != 1 {
		t.Errorf("keys: %s, dropped %d", k, m.DroppedAttributesCount)
	}
	if n := opts.Counters.Cut.Load(); n != 4 {
		t.Errorf("counted %d cut", n)
	}
}

func TestTraceState(t *testing.T) {
	for _, tc := range []struct {
		state, want string
		cut         uint64
	}{
		{`null`, "", 0},
		{`[]`, "", 0},
		{`[["a","1"],["b","2"]]`, "a=1,b=2", 0},
		{`[["a","1"],["b","` + strings.Repeat("2", 100) + `"]]`, "", 1},
	} {
		opts := Options{Options: span.Options{MaxValue: 20}, Counters: &Counters{Losses: new(losses.Tally)}}
		m := decodeProto(t, `{"span_context":{"trace_state":`+tc.state+`,"trace_id":7,"span_id":9}}`, opts)
		if m.TraceState != tc.want || opts.Counters.Cut.Load() != tc.cut {
			t.Errorf("%s: %q, cut %d", tc.state, m.TraceState, opts.Counters.Cut.Load())
		}
	}
}

func TestPayloadErrors(t *testing.T) {
	bare := string(payloads(t, testdata(t, goldenBin+".frames"))[0])
	const idAt, nameAt = 0, 16 + 8 + 1 + 1 + 1 + 8 + 4
	for name, tc := range map[string]struct {
		payload string
		want    losses.Reason
	}{
		"empty":                {"", losses.Truncated},
		"brace":                {"{", losses.Truncated},
		"two braces":           {`{"}`, losses.Truncated},
		"json, no identity":    {`{"name":"x"}`, losses.NoIdentity},
		"json, zero span id":   {`{"span_context":{"trace_id":7,"span_id":0}}`, losses.NoIdentity},
		"json, cut":            {jsonSpan(`"name":"x","end_time":{`), losses.Truncated},
		"json, more after it":  {jsonSpan("") + "{}", losses.Malformed},
		"json, NUL after it":   {jsonSpan("") + "\x00}", losses.Malformed},
		"json, no colon":       {jsonSpan(`"name" "x"`), losses.Malformed},
		"json, no comma":       {`{"span_context":{"trace_id":7 "span_id":9}}`, losses.Malformed},
		"json, id too long":    {`{"span_context":{"trace_id":340282366920938463463374607431768211456,"span_id":9}}`, losses.Malformed},
		"json, id much longer": {`{"span_context":{"trace_id":` + strings.Repeat("9", 80) + `,"span_id":9}}`, losses.Malformed},
		"json, negative id":    {`{"span_context":{"trace_id":-7,"span_id":9}}`, losses.Malformed},
		"json, span id of 65":  {`{"span_context":{"trace_id":7,"span_id":18446744073709551616}}`, losses.Malformed},
		"json, flags":          {`{"span_context":{"trace_id":7,"span_id":9,"trace_flags":256}}`, losses.Malformed},
		"json, kind":           {jsonSpan(`"span_kind":"internal"`), losses.Malformed},
		"json, status":         {jsonSpan(`"status_code":1`), losses.Malformed},
		"json, int too large":  {jsonSpan(`"attributes":{"map":{"cid":{"I64":9223372036854775808}}}`), losses.Malformed},
		"json, escape":         {jsonSpan(`"name":"\x"`), losses.Malformed},
		"json, short escape":   {jsonSpan(`"name":"\u12"`), losses.Malformed},
		"json, signed escape":  {jsonSpan(`"name":"\u+123"`), losses.Malformed},
		"json, not UTF-8":      {jsonSpan("\"name\":\"\xff\""), losses.NotText},
		"json, half character": {jsonSpan("\"name\":\"\xf0\x9f\\n\""), losses.NotText},
		"json, stray brace":    {jsonSpan(`"new":}`), losses.Malformed},
		"json, no value":       {jsonSpan(`"events":{"queue":[{"attributes":[{"key":"a"}]}]}`), losses.Malformed},

		"bincode, zero id":       {strings.Repeat("\x00", 16) + bare[16:], losses.NoIdentity},
		"bincode, more after it": {bare + "\x00", losses.Malformed},
		"bincode, remote of 2":   {bare[:25] + "\x02" + bare[26:], losses.Malformed},
		"bincode, kind of 5":     {bare[:nameAt-4] + "\x05" + bare[nameAt-3:], losses.Malformed},
		"bincode, long name":     {bare[:nameAt] + strings.Repeat("\xff", 8) + bare[nameAt+8:], losses.Truncated},
		"bincode, not UTF-8":     {bare[:nameAt] + "\x01\x00\x00\x00\x00\x00\x00\x00\xff" + bare[nameAt+8:], losses.NotText},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Counters: &Counters{Losses: new(losses.Tally)}}
			s := span.Span{Name: "old"}
			err := NewDecoder(opts).Decode([]byte(tc.payload), &s)
			var pe *payloadError
			if !errors.As(err, &pe) || pe.Reason != tc.want {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if len(s.AppendOTLP(nil)) != len(new(span.Span).AppendOTLP(nil)) {
				t.Error("the span is not empty")
			}
			if opts.Counters.Losses.Of(tc.want) != 1 || opts.Counters.Spans.Load() != 0 {
				t.Error("not counted")
			}
		})
	}
}

// The shortest elements, so many that nothing else can hide a bound that is too tight.
func TestBincodeShortestElements(t *testing.T) {
	const n = 200
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	list := func(n int, element string) string {
		return string(binary.LittleEndian.AppendUint64(nil, uint64(n))) + strings.Repeat(element, n)
	}
	some := func(n int, element string) string {
		if n == 0 {
			return "\x00"
		}
		return "\x01" + list(n, element)
	}
	context := "\x07" + zeros(15) + "\x09" + zeros(7) + "\x00\x00\x00"
	attribute := list(0, "") + zeros(4) + "\x01"
	whole := func(attributes, evicted, events, links, resource int) string {
		return context + zeros(8) + zeros(4) + list(0, "") + zeros(12) + zeros(12) +
			list(attributes, attribute) + list(evicted, list(0, "")) + zeros(8) +
			some(events, list(0, "")+zeros(12)+list(0, "")+zeros(4)) + zeros(8) +
			some(links, context+list(0, "")+zeros(4)) + zeros(8) +
			zeros(4) + list(0, "") +
			some(resource, attribute)
	}
	for name, payload := range map[string]string{
		"attributes": whole(n, 0, 0, 0, 0),
		"evicted":    whole(0, n, 0, 0, 0),
		"events":     whole(0, 0, n, 0, 0),
		"links":      whole(0, 0, 0, n, 0),
		"resource":   whole(0, 0, 0, 0, n),
	} {
		m := decodeProto(t, payload, Options{Options: span.Options{MaxAttributes: n, MaxEvents: n, MaxLinks: n}})
		got := map[string]int{"attributes": len(m.Attributes), "events": len(m.Events), "links": len(m.Links)}
		for list, have := range got {
			want := 0
			if list == name {
				want = n
			}
			if have != want {
				t.Errorf("span of %s: %d %s", name, have, list)
			}
		}
	}
}

// No prefix of a span is a span.
func TestTruncated(t *testing.T) {
	for _, name := range []string{goldenBin, goldenJSON} {
		d := NewDecoder(Options{})
		var s span.Span
		for i, p := range payloads(t, testdata(t, name+".frames")) {
			if len(p) > 16<<10 {
				continue
			}
			for n := range p {
				if err := d.Decode(p[:n], &s); err == nil {
					t.Errorf("%s, frame %d: the first %d of %d bytes decode", name, i, n, len(p))
				}
			}
			if err := d.Decode(p, &s); err != nil {
				t.Errorf("%s, frame %d: %v", name, i, err)
			}
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	for _, name := range []string{capture328, capture410} {
		all := payloads(t, testdata(t, name+".frames"))
		d := NewDecoder(Options{})
		var s span.Span
		var batch []byte
		decode := func() {
			batch = batch[:0]
			for _, p := range all {
				if err := d.Decode(p, &s); err != nil {
					t.Fatal(err)
				}
				batch = s.AppendOTLP(batch)
			}
		}
		decode()
		if n := testing.AllocsPerRun(10, decode); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
