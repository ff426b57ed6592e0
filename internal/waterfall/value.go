package waterfall

import (
	"iter"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// attributes yields the key and value (an AnyValue message) of each attribute in field
// num of a message.
func attributes(msg []byte, num protowire.Number) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for c := (cursor{rest: msg}); c.next(); {
			if c.is(num) && !yield(keyValue(c.bytes)) {
				return
			}
		}
	}
}

func keyValue(msg []byte) (key, value []byte) {
	for c := (cursor{rest: msg}); c.next(); {
		switch {
		case c.is(otlpwire.KeyValueKey):
			key = c.bytes
		case c.is(otlpwire.KeyValueValue):
			value = c.bytes
		}
	}
	return key, value
}

// maxValueDepth bounds the depth to which nested attribute values are printed.
const maxValueDepth = 4

// valueText returns an attribute's value as text, little longer than maxText: scalars
// as they are, lists and maps in brackets.
func valueText(value []byte, depth int) string {
	if depth > maxValueDepth {
		return "…"
	}
	text := ""
	for c := (cursor{rest: value}); c.next(); { // the last field counts
		switch {
		case c.is(otlpwire.AnyString):
			text = string(c.bytes[:min(len(c.bytes), maxText+1)])
		case c.num == otlpwire.AnyBool && c.typ == protowire.VarintType:
			text = strconv.FormatBool(c.value != 0)
		case c.num == otlpwire.AnyInt && c.typ == protowire.VarintType:
			text = strconv.FormatInt(int64(c.value), 10)
		case c.num == otlpwire.AnyDouble && c.typ == protowire.Fixed64Type:
			text = strconv.FormatFloat(math.Float64frombits(c.value), 'g', -1, 64)
		case c.is(otlpwire.AnyBytes):
			text = strconv.Itoa(len(c.bytes)) + " bytes"
		case c.is(otlpwire.AnyArray):
			text = listText(c.bytes, "[", "]", func(element []byte) string { return valueText(element, depth+1) })
		case c.is(otlpwire.AnyMap):
			text = listText(c.bytes, "{", "}", func(element []byte) string {
				key, value := keyValue(element)
				return string(key[:min(len(key), maxText)]) + ": " + valueText(value, depth+1)
			})
		}
	}
	return text
}

// textOf is valueText without copying a value that is text.
func textOf(value []byte) []byte {
	if c := (cursor{rest: value}); c.next() && c.is(otlpwire.AnyString) && len(c.rest) == 0 {
		return c.bytes
	}
	return []byte(valueText(value, 0))
}

// listText returns the elements of a list between brackets, as many as fit.
func listText(list []byte, begin, end string, element func([]byte) string) string {
	text, first := []byte(begin), true
	for c := (cursor{rest: list}); c.next(); {
		if !c.is(otlpwire.ArrayValues) {
			continue
		}
		if !first {
			text = append(text, ", "...) // also between empty ones: a list may have nothing else
		}
		if first = false; len(text) > maxText {
			return string(text) + "…" + end
		}
		text = append(text, element(c.bytes)...)
	}
	return string(text) + end
}
