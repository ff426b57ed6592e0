package waterfall

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// JSONWriter writes spans as one OTLP/JSON document (TracesData) and a newline, for
// programs that read OTLP files. It converts field by field and holds no message in
// memory.
//
// OTLP/JSON is protobuf's JSON with two differences: trace and span ids are
// hexadecimal, and enumerations are numbers (opentelemetry-proto 1.x,
// docs/specification.md, "JSON Protobuf Encoding").
type JSONWriter struct {
	out    *bufio.Writer
	begun  bool
	reader reader
	posted reader // of what other programs have posted
}

// NewJSONWriter returns a writer to w. Close completes the document.
func NewJSONWriter(w io.Writer) *JSONWriter {
	return &JSONWriter{out: bufio.NewWriter(w), posted: reader{others: true}}
}

// Add writes the spans of a TracesData message that belong to the story. Of a malformed
// message it writes those that can be read. It keeps no part of data, and returns write
// errors.
func (j *JSONWriter) Add(s *Story, data []byte) error {
	return j.add(&j.reader, data, s.has)
}

// AddPosted is Add for a message that other programs have posted.
func (j *JSONWriter) AddPosted(s *Story, data []byte) error {
	return j.add(&j.posted, data, func(_ *resource, key spanKey) bool { return s.hasPosted(key.trace) })
}

func (j *JSONWriter) add(from *reader, data []byte, has func(*resource, spanKey) bool) error {
	for top := protofields.Of(data); top.Next(); {
		if top.Is(otlpwire.DataResourceSpans) {
			j.story(from, top.Bytes, has)
		}
	}
	_, err := j.out.Write(nil) // returns the first write error
	return err
}

// story writes the story's part of a ResourceSpans message, once for each scope.
func (j *JSONWriter) story(from *reader, msg []byte, has func(*resource, spanKey) bool) {
	res := from.resource(protofields.Last(msg, otlpwire.ResourceSpansResource))
	head := without(msg, otlpwire.ResourceSpansScopes)
	for c := protofields.Of(msg); c.Next(); {
		if !c.Is(otlpwire.ResourceSpansScopes) {
			continue
		}
		scope, mine := without(c.Bytes, otlpwire.ScopeSpansSpans), false
		for spans := protofields.Of(c.Bytes); spans.Next(); {
			if !spans.Is(otlpwire.ScopeSpansSpans) {
				continue
			}
			if key := readKey(spans.Bytes); key != (spanKey{}) && has(res, key) {
				scope, mine = otlpwire.AppendBytes(scope, otlpwire.ScopeSpansSpans, spans.Bytes), true
			}
		}
		if mine {
			j.resourceSpans(otlpwire.AppendBytes(head[:len(head):len(head)], otlpwire.ResourceSpansScopes, scope))
		}
	}
}

func (j *JSONWriter) resourceSpans(msg []byte) {
	if !j.begun {
		j.out.WriteString(`{"resourceSpans":[`)
	} else {
		j.out.WriteByte(',')
	}
	j.begun = true
	writeMessage(j.out, (*tracepb.ResourceSpans)(nil).ProtoReflect().Descriptor(), msg, 0)
}

// Close ends the document.
func (j *JSONWriter) Close() error {
	if !j.begun {
		j.out.WriteString(`{"resourceSpans":[`)
	}
	j.out.WriteString("]}\n")
	return j.out.Flush()
}

// WriteJSON writes spans as one OTLP/JSON document and a newline.
func WriteJSON(w io.Writer, spans []*tracepb.ResourceSpans) error {
	j := NewJSONWriter(w)
	for _, rs := range spans {
		msg, err := proto.Marshal(rs)
		if err != nil {
			return fmt.Errorf("spans as JSON: %w", err)
		}
		j.resourceSpans(msg)
	}
	return j.Close()
}

// without returns a message without its fields num.
func without(msg []byte, num protowire.Number) (rest []byte) {
	for c := protofields.Of(msg); c.Next(); {
		if c.Number != num {
			rest = append(rest, c.Whole()...)
		}
	}
	return rest
}

// maxJSONDepth bounds the nesting in a document; values may be nested.
const maxJSONDepth = 64

// writeMessage writes a message as an object, without fields that its type does not
// have.
func writeMessage(out *bufio.Writer, md protoreflect.MessageDescriptor, msg []byte, depth int) {
	out.WriteByte('{')
	var present uint64 // field numbers, all of which are below 64
	for c := protofields.Of(msg); c.Next() && depth < maxJSONDepth; {
		present |= 1 << c.Number
	}
	fields, first := md.Fields(), true
	for i := 0; i < fields.Len() && present != 0; i++ {
		fd := fields.Get(i)
		if present&(1<<fd.Number()) == 0 {
			continue
		}
		n, last := 0, protofields.Fields{}
		for c := protofields.Of(msg); c.Next(); {
			if c.Number != fd.Number() || !fits(fd, c.Type) {
				continue
			}
			if n++; !fd.IsList() {
				last = c
				continue
			}
			if n == 1 {
				writeKey(out, fd, &first)
				out.WriteByte('[')
			} else {
				out.WriteByte(',')
			}
			writeValue(out, fd, &c, depth)
		}
		switch {
		case n > 0 && fd.IsList():
			out.WriteByte(']')
		case n > 0:
			writeKey(out, fd, &first)
			writeValue(out, fd, &last, depth)
		}
	}
	out.WriteByte('}')
}

func writeKey(out *bufio.Writer, fd protoreflect.FieldDescriptor, first *bool) {
	if !*first {
		out.WriteByte(',')
	}
	*first = false
	out.WriteByte('"')
	out.WriteString(fd.JSONName())
	out.WriteString(`":`)
}

// fits reports whether the wire type fits the field; OTLP has no packed numbers.
func fits(fd protoreflect.FieldDescriptor, typ protowire.Type) bool {
	switch fd.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return typ == protowire.BytesType
	case protoreflect.Fixed64Kind, protoreflect.DoubleKind:
		return typ == protowire.Fixed64Type
	case protoreflect.Fixed32Kind:
		return typ == protowire.Fixed32Type
	}
	return typ == protowire.VarintType
}

func writeValue(out *bufio.Writer, fd protoreflect.FieldDescriptor, c *protofields.Fields, depth int) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		writeMessage(out, fd.Message(), c.Bytes, depth+1)
	case protoreflect.StringKind:
		text, _ := json.Marshal(strings.ToValidUTF8(string(c.Bytes), "\uFFFD")) // a string never fails
		out.Write(text)
	case protoreflect.BytesKind:
		out.WriteByte('"')
		if strings.HasSuffix(fd.JSONName(), "Id") { // traceId, spanId, parentSpanId
			out.WriteString(hex.EncodeToString(c.Bytes))
		} else {
			out.WriteString(base64.StdEncoding.EncodeToString(c.Bytes))
		}
		out.WriteByte('"')
	case protoreflect.BoolKind:
		out.WriteString(strconv.FormatBool(c.Value != 0))
	case protoreflect.DoubleKind:
		writeDouble(out, math.Float64frombits(c.Value))
	case protoreflect.Int64Kind:
		out.WriteString(`"` + strconv.FormatInt(int64(c.Value), 10) + `"`)
	case protoreflect.Fixed64Kind:
		out.WriteString(`"` + strconv.FormatUint(c.Value, 10) + `"`)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		out.WriteString(strconv.FormatUint(uint64(uint32(c.Value)), 10))
	default: // enumerations
		out.WriteString(strconv.FormatInt(int64(int32(c.Value)), 10))
	}
}

// writeDouble writes a number in protobuf's JSON, which has texts for numbers that JSON
// lacks.
func writeDouble(out *bufio.Writer, v float64) {
	switch {
	case math.IsNaN(v):
		out.WriteString(`"NaN"`)
	case math.IsInf(v, 1):
		out.WriteString(`"Infinity"`)
	case math.IsInf(v, -1):
		out.WriteString(`"-Infinity"`)
	default:
		text, _ := json.Marshal(v) // a finite number never fails
		out.Write(text)
	}
}
