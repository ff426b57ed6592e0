package endpoint

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

const (
	captureGo   = "kata-4.1.0-pod.runtime-thrift"
	captureRust = "kata-4.1.0-rs-pod.runtime-thrift"
)

// secret is in the environment of the captures' containers.
const secret = "hunter2"

// bodies returns a capture's bodies, in order.
func bodies(tb testing.TB, name string) [][]byte {
	tb.Helper()
	return testkit.Untar(tb, filepath.Join("testdata", name+".tar.gz"))
}

// wireStruct is a struct of Thrift's binary protocol as it is on the wire, by its fields'
// numbers. It is a reader independent of the one under test, without a library and
// without limits.
type wireStruct map[int]any

func parseWire(b []byte) wireStruct {
	v, rest := wireValue(b, 12)
	if len(rest) > 0 {
		panic("bytes are left")
	}
	return v.(wireStruct)
}

func wireValue(b []byte, is byte) (any, []byte) {
	be := binary.BigEndian
	switch is {
	case 2:
		return b[0] == 1, b[1:]
	case 4:
		return math.Float64frombits(be.Uint64(b)), b[8:]
	case 8:
		return int32(be.Uint32(b)), b[4:]
	case 10:
		return int64(be.Uint64(b)), b[8:]
	case 11:
		n := be.Uint32(b)
		return string(b[4 : 4+n]), b[4+n:]
	case 12:
		s := wireStruct{}
		for b[0] != 0 {
			is, id := b[0], int(be.Uint16(b[1:]))
			s[id], b = wireValue(b[3:], is)
		}
		return s, b[1:]
	case 15:
		of, n := b[0], int(be.Uint32(b[1:]))
		list := make([]wireStruct, 0, n)
		b = b[5:]
		for range n {
			var v any
			v, b = wireValue(b, of)
			list = append(list, v.(wireStruct))
		}
		return list, b
	}
	panic("a type that jaeger.thrift does not have")
}

func (s wireStruct) list(id int) []wireStruct { l, _ := s[id].([]wireStruct); return l }
func (s wireStruct) long(id int) int64        { v, _ := s[id].(int64); return v }
func (s wireStruct) text(id int) string       { v, _ := s[id].(string); return v }

// tags returns a span's tags as text, by key.
func (s wireStruct) tags() map[string]any {
	tags := make(map[string]any)
	for _, t := range s.list(10) {
		tags[t.text(1)] = t[map[int32]int{0: 3, 1: 4, 2: 5, 3: 6, 4: 7}[t[2].(int32)]]
	}
	return tags
}

// message returns a span as a collector reads it.
func message(tb testing.TB, s *span.Span) *tracepb.Span {
	tb.Helper()
	m := new(tracepb.Span)
	if err := proto.Unmarshal(s.AppendOTLP(nil), m); err != nil { // where a text is not UTF-8
		tb.Fatal(err)
	}
	return m
}
