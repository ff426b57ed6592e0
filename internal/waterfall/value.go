package waterfall

import (
	"iter"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// attributes yields the key and value (an AnyValue message) of each attribute in field
// num of a message.
func attributes(msg []byte, num protowire.Number) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for c := protofields.Of(msg); c.Next(); {
			if c.Is(num) && !yield(keyValue(c.Bytes)) {
				return
			}
		}
	}
}

func keyValue(msg []byte) (key, value []byte) {
	for c := protofields.Of(msg); c.Next(); {
		switch {
		case c.Is(otlpwire.KeyValueKey):
			key = c.Bytes
		case c.Is(otlpwire.KeyValueValue):
			value = c.Bytes
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
	for c := protofields.Of(value); c.Next(); { // the last field counts
		switch {
		case c.Is(otlpwire.AnyString):
			text = string(c.Bytes[:min(len(c.Bytes), maxText+1)])
		case c.Has(otlpwire.AnyBool, protowire.VarintType):
			text = strconv.FormatBool(c.Value != 0)
		case c.Has(otlpwire.AnyInt, protowire.VarintType):
			text = strconv.FormatInt(int64(c.Value), 10)
		case c.Has(otlpwire.AnyDouble, protowire.Fixed64Type):
			text = strconv.FormatFloat(math.Float64frombits(c.Value), 'g', -1, 64)
		case c.Is(otlpwire.AnyBytes):
			text = strconv.Itoa(len(c.Bytes)) + " bytes"
		case c.Is(otlpwire.AnyArray):
			text = listText(c.Bytes, "[", "]", func(element []byte) string { return valueText(element, depth+1) })
		case c.Is(otlpwire.AnyMap):
			text = listText(c.Bytes, "{", "}", func(element []byte) string {
				key, value := keyValue(element)
				return string(key[:min(len(key), maxText)]) + ": " + valueText(value, depth+1)
			})
		}
	}
	return text
}

// textOf is valueText without copying a value that is text.
func textOf(value []byte) []byte {
	if c := protofields.Of(value); c.Next() && c.Is(otlpwire.AnyString) && c.End == len(value) {
		return c.Bytes
	}
	return []byte(valueText(value, 0))
}

// listText returns the elements of a list between brackets, as many as fit.
func listText(list []byte, begin, end string, element func([]byte) string) string {
	text, first := []byte(begin), true
	for c := protofields.Of(list); c.Next(); {
		if !c.Is(otlpwire.ArrayValues) {
			continue
		}
		if !first {
			text = append(text, ", "...) // also between empty ones: a list may have nothing else
		}
		if first = false; len(text) > maxText {
			return string(text) + "…" + end
		}
		text = append(text, element(c.Bytes)...)
	}
	return string(text) + end
}
