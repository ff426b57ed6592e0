package span

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// The costs of a span's parts in memory as OTLP messages, in bytes, without their texts: the
// messages, the pointers to them and the allocator's rounding. An array of booleans, one byte
// each on the wire, costs a hundred times that.
const (
	spanCost      = 1 << 10
	attributeCost = 224
	elementCost   = 104
	eventCost     = 160
	linkCost      = 256
)

// MaxElements is the length of the longest array that is kept; a longer one becomes its size.
// The agents send no arrays.
const MaxElements = 128

// Cost returns the most memory that the span takes on its way, in bytes: as a message, with its
// attributes, events and links. It is more than AppendOTLP appends, and at most
// Options.MaxCost.
func (s *Span) Cost() int {
	return spanCost + len(s.Name) + len(s.TraceState) + idCost(s.ContainerID) + idCost(s.ExecID) + s.cost
}

// afford reserves memory for the current span and reports whether that fits in Options.MaxCost.
func (b *Builder) afford(cost int) bool {
	if b.cost+cost > b.opts.MaxCost-spanCost {
		return false
	}
	b.cost += cost
	return true
}

// cost returns the cost of an attribute; key is the length of its key in bytes. The allocator
// rounds long texts up by at most an eighth.
func (v Value) cost(key int) int {
	return attributeCost + key + len(v.Text) + len(v.Text)/8 + v.elements*elementCost
}

// densest is the most memory per byte of OTLP: two bytes are an element of an array.
const densest = elementCost / 2

// bareItem is the length of a link without attributes, or of a short event.
const bareItem = 32

// costOf estimates the cost of an OTLP field that is copied unparsed.
func costOf(field protowire.Number, whole []byte) int {
	switch field {
	case otlpwire.SpanAttributes:
		if !hasArray(whole) {
			return attributeCost + len(whole) + len(whole)/8
		}
		return attributeCost + densest*len(whole)
	case otlpwire.SpanEvents, otlpwire.SpanLinks:
		if len(whole) <= bareItem {
			return linkCost
		}
		return linkCost + densest*len(whole)
	}
	return len(whole)
}

// hasArray reports whether an attribute, a whole field, may have more than one value.
func hasArray(whole []byte) bool {
	attribute := protofields.Last(whole, otlpwire.SpanAttributes)
	f := protofields.Of(attribute)
	if f.Next() && f.Number == otlpwire.KeyValueKey {
		f.Next()
	}
	if f.Err() != nil || !f.Is(otlpwire.KeyValueValue) || f.End != len(attribute) {
		return true
	}
	value := protofields.Of(f.Bytes)
	return !value.Next() || value.Number >= otlpwire.AnyArray || value.End != len(f.Bytes)
}

// idCost returns the cost of an attribute with a container's or exec's id.
func idCost(id string) int {
	if id == "" {
		return 0
	}
	return attributeCost + len(names.ClaimedContainer) + 2*len(id)
}
