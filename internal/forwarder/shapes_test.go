package forwarder_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
)

// shape is one way in which a guest can make a byte expensive.
type shape struct {
	name string
	// frame returns the nth frame in both encodings, without one that cannot express it.
	json, bincode func(n int) []byte
	raw           func(tb testing.TB) []byte // instead of both
	// CPU bounds a byte's processor time, as a multiple of that of a byte of a real pod; heap
	// bounds its memory in passing, and disk its bytes in the journal.
	cpu, heap, disk float64
}

// wide is the number of elements of the longest list that makes sense.
const wide = 2000

func shapes() []shape {
	return []shape{
		{name: "a real pod", raw: func(tb testing.TB) []byte { return captured.Frames(tb, captured.Go+".agent") }, cpu: 4, heap: 1, disk: 0.1},
		{name: "an old agent", raw: func(tb testing.TB) []byte { return captured.Frames(tb, "kata-3.28.0-agent") }, cpu: 4, heap: 1, disk: 0.1},
		spans("tiny spans", spanShape{}, 20, 10, 0.6),
		spans("arrays of booleans", spanShape{attributes: attributes(20, "code", array(wide, boolean))}, 12, 1, 0.05),
		spans("arrays of numbers", spanShape{attributes: attributes(20, "code", array(wide, number))}, 15, 1, 0.05),
		spans("arrays of floats", spanShape{attributes: attributes(20, "code", array(wide, float))}, 15, 1, 0.05),
		spans("arrays of empty texts", spanShape{attributes: attributes(20, "code", array(wide, empty))}, 12, 1, 0.05),
		spans("short arrays of booleans", spanShape{attributes: attributes(100, "code", array(128, boolean))}, 80, 20, 1),
		spans("short arrays of empty texts", spanShape{attributes: attributes(100, "code", array(128, empty))}, 40, 10, 0.4),
		spans("empty arrays", spanShape{attributes: attributes(128, "code", array(0, boolean))}, 40, 14, 0.7),
		spans("arrays that are not kept", spanShape{attributes: attributes(20, "a", array(wide, boolean))}, 12, 1, 0.05),
		spans("booleans", spanShape{attributes: attributes(128, "code", boolean)}, 45, 15, 1.1),
		spans("sizes", spanShape{attributes: attributes(128, "a", boolean)}, 50, 20, 1.5),
		spans("too many attributes", spanShape{attributes: attributes(wide, "code", boolean)}, 12, 1.5, 0.1),
		spans("long texts", spanShape{attributes: attributes(50, "code", text(4<<10))}, 10, 8, 1.2),
		spans("texts that are too long", spanShape{attributes: attributes(10, "code", text(60<<10))}, 6, 2, 0.2),
		spans("texts that are not kept", spanShape{attributes: attributes(10, "a", text(60<<10))}, 6, 2, 0.1),
		spans("long keys", spanShape{attributes: attributes(100, "code."+strings.Repeat("k", 200), boolean)}, 10, 9, 1.2),
		spans("keys that are too long", spanShape{attributes: attributes(100, strings.Repeat("k", 2000), boolean)}, 6, 1, 0.05),
		spans("events", spanShape{events: 128}, 15, 7, 0.6),
		spans("too many events", spanShape{events: wide}, 8, 1, 0.1),
		spans("events with attributes", spanShape{events: 40, within: attributes(20, "code", boolean)}, 45, 16, 1.1),
		spans("links", spanShape{links: 128}, 20, 11, 1.2),
		spans("too many links", spanShape{links: wide}, 8, 1.5, 0.2),
		spans("a name that is long", spanShape{name: strings.Repeat("n", 60<<10)}, 6, 1, 0.2),
		spans("a message that is long", spanShape{message: strings.Repeat("m", 60<<10)}, 6, 1, 0.1),
		spans("names of all sorts", spanShape{name: "%d"}, 20, 10, 0.7),
		spans("a trace each", spanShape{traces: true}, 30, 10, 0.7),
		spans("a parent each", spanShape{orphans: true}, 35, 14, 0.8),
		spans("a chain", spanShape{chain: true}, 30, 11, 0.8),
		spans("requests", spanShape{name: "create_container", traces: true}, 30, 12, 0.8),
		spans("roots that are no requests", spanShape{name: "baremount", traces: true}, 30, 11, 0.8),
		jsonOnly("escapes", `"name":"n","status_message":"`+strings.Repeat(`\u0041`, 10<<10)+`"`, 8),
		jsonOnly("pairs of escapes", `"name":"n","x":"`+strings.Repeat(`\ud83e\udd80`, 5<<10)+`"`, 8),
		jsonOnly("white space", `"name":`+strings.Repeat(" ", 60<<10)+`"n"`, 5),
		jsonOnly("nesting", `"x":`+strings.Repeat("[", 30<<10)+strings.Repeat("]", 30<<10), 6),
		jsonOnly("a map of maps", `"x":{`+many(4000, `"a%d":{"b":[]}`)+`}`, 5),
		jsonOnly("fields again and again", many(4000, `"name":"n"`), 8),
		jsonOnly("digits", `"x":`+strings.Repeat("1", 60<<10), 5),
		jsonOnly("a float of many digits", `"attributes":{"map":{"code.x":{"F64":1.`+strings.Repeat("1", 60<<10)+`}}}`, 6),
		jsonOnly("a trace state", `"span_context":{"trace_id":1,"span_id":1,"trace_state":[`+many(4000, `["a%d","b"]`)+`]}`, 6),
		jsonOnly("values before keys", `"events":{"queue":[{"attributes":[`+many(500, `{"value":{"String":"`+strings.Repeat("x", 100)+`"},"key":"a"}`)+`]}]}`, 6),
		jsonOnly("nothing that is known", many(4000, `"a%d":null`), 6),
		repeated("empty frames", make([]byte, 8), 45),
		repeated("frames of a byte", []byte{0, 0, 0, 0, 0, 0, 0, 1, 'x'}, 40),
		repeated("frames that are too long", frame(make([]byte, 4<<20)), 2),
		repeated("frames that are as long as possible", frame(append([]byte(`{"x":"`), append([]byte(strings.Repeat("x", 1<<20-8)), `"}`...)...)), 4),
		repeated("garbage", frame([]byte(strings.Repeat("garbage", 100))), 4),
	}
}

// spans is a shape of spans in both encodings.
func spans(name string, s spanShape, cpu, heap, disk float64) shape {
	return shape{name: name, json: s.json, bincode: s.bincode, cpu: cpu, heap: heap, disk: disk}
}

// jsonOnly is a shape of JSON spans with the fields.
func jsonOnly(name, fields string, cpu float64) shape {
	return shape{name: name, cpu: cpu, heap: 2, disk: 0.1, json: func(n int) []byte {
		return fmt.Appendf(nil, `{"span_context":{"trace_id":1,"span_id":%d},"end_time":{"secs_since_epoch":1},%s}`, n+1, fields)
	}}
}

// repeated is a shape of repeated data without any span.
func repeated(name string, data []byte, cpu float64) shape {
	return shape{name: name, cpu: cpu, heap: 4, disk: 0.1, raw: func(testing.TB) []byte { return data }}
}

// variants returns the shape's streams of about size bytes, by encoding.
func (s shape) variants(tb testing.TB, size int) map[string][]byte {
	all := make(map[string][]byte)
	if s.raw != nil {
		one := s.raw(tb)
		var data []byte
		for len(data) < size {
			data = append(data, one...)
		}
		all["raw"] = data
		return all
	}
	for encoding, f := range map[string]func(int) []byte{"json": s.json, "bincode": s.bincode} {
		if f == nil {
			continue
		}
		var data []byte
		for n := 0; len(data) < size; n++ {
			data = append(data, frame(f(n))...)
		}
		all[encoding] = data
	}
	return all
}

func frame(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(len(payload))), payload...)
}

// spanShape is what a shape's spans are made of.
type spanShape struct {
	name, message string // a %d in the name is the span's number
	attributes    []keyed
	events, links int
	within        []keyed // of each event
	traces        bool    // each is in its own trace
	orphans       bool    // each has a parent that never arrives
	chain         bool    // each is below the next one
}

type keyed struct {
	key string
	value
}

// value is an attribute's value in both encodings.
type value struct{ json, bincode string }

func attributes(n int, prefix string, v value) (all []keyed) {
	for i := range n {
		all = append(all, keyed{fmt.Sprintf("%s.%d", prefix, i), v})
	}
	return all
}

func u32(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }
func u64(n uint64) string { return string(binary.LittleEndian.AppendUint64(nil, n)) }
func bintext(s string) string {
	return u64(uint64(len(s))) + s
}

var (
	boolean = value{`{"Bool":true}`, u32(0) + "\x01"}
	number  = value{`{"I64":1}`, u32(1) + u64(1)}
	float   = value{`{"F64":1.5}`, u32(2) + u64(1)}
	empty   = text(0)
)

func text(n int) value {
	s := strings.Repeat("x", n)
	return value{`{"String":"` + s + `"}`, u32(3) + bintext(s)}
}

// array is an array of one value.
func array(n int, of value) value {
	kind, element, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(of.json, "{"), "}"), ":")
	return value{
		json:    `{"Array":{` + kind + `:[` + many(n, element) + `]}}`,
		bincode: u32(4) + of.bincode[:4] + u64(uint64(n)) + strings.Repeat(of.bincode[4:], n),
	}
}

// many repeats an element of a list, with its number for %d.
func many(n int, element string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = element
		if strings.Contains(element, "%d") {
			all[i] = fmt.Sprintf(element, i)
		}
	}
	return strings.Join(all, ",")
}

// ids returns the ids of the nth span.
func (s spanShape) ids(n int) (trace, id, parent uint64) {
	trace, id = 1, uint64(n)+1
	if s.traces {
		trace = id
	}
	if s.orphans {
		parent = id | 1<<40
	}
	if s.chain {
		parent = id + 1
	}
	return trace, id, parent
}

func (s spanShape) named(n int) string {
	if strings.Contains(s.name, "%d") {
		return fmt.Sprintf(s.name, n)
	}
	return s.name
}

func (s spanShape) json(n int) []byte {
	trace, id, parent := s.ids(n)
	b := fmt.Appendf(nil, `{"span_context":{"trace_id":%d,"span_id":%d,"trace_flags":1},"parent_span_id":%d,"span_kind":"Internal","name":"%s",`+
		`"start_time":{"secs_since_epoch":1},"end_time":{"secs_since_epoch":2},"attributes":{"map":{`, trace, id, parent, s.named(n))
	for i, a := range s.attributes {
		b = fmt.Appendf(b, `%s"%s":%s`, comma(i), a.key, a.json)
	}
	b = append(b, `}},"events":{"queue":[`...)
	for i := range s.events {
		b = append(b, comma(i)+`{"name":"","attributes":[`...)
		for j, a := range s.within {
			b = fmt.Appendf(b, `%s{"key":"%s","value":%s}`, comma(j), a.key, a.json)
		}
		b = append(b, `]}`...)
	}
	b = append(b, `]},"links":{"queue":[`...)
	for i := range s.links {
		b = append(b, comma(i)+`{"span_context":{"trace_id":1,"span_id":1}}`...)
	}
	return fmt.Appendf(b, `]},"status_message":"%s"}`, s.message)
}

func comma(i int) string {
	if i == 0 {
		return ""
	}
	return ","
}

func (s spanShape) bincode(n int) []byte {
	trace, id, parent := s.ids(n)
	context := func(trace, id uint64) string { return u64(trace) + u64(0) + u64(id) + "\x01\x00\x00" }
	list := func(all []keyed) string {
		var b strings.Builder
		b.WriteString(u64(uint64(len(all))))
		for _, a := range all {
			b.WriteString(bintext(a.key) + a.bincode)
		}
		return b.String()
	}
	queue := func(n int, one string) string {
		if n == 0 {
			return "\x00" + u32(128) + u32(0)
		}
		return "\x01" + u64(uint64(n)) + strings.Repeat(one, n) + u32(128) + u32(0)
	}
	time := func(s uint64) string { return u64(s) + u32(0) }
	return []byte(context(trace, id) + u64(parent) + u32(4) + bintext(s.named(n)) + time(1) + time(2) +
		list(s.attributes) + u64(0) + u32(128) + u32(0) +
		queue(s.events, bintext("")+time(1)+list(s.within)+u32(0)) +
		queue(s.links, context(1, 1)+u64(0)+u32(0)) +
		u32(0) + bintext(s.message) + "\x00")
}
