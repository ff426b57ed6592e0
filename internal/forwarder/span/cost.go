package span

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/names"
)

// What the parts of a span cost in memory as OTLP messages, in bytes beside their
// texts: the messages, the pointers to them and what the allocator rounds up. An
// array of booleans, one byte each on the wire, costs a hundred times that.
const (
	spanCost      = 1 << 10
	attributeCost = 224
	elementCost   = 104
	eventCost     = 160
	linkCost      = 256
)

// MaxElements is the longest array that is kept; a longer one becomes its size. The
// agents send none.
const MaxElements = 128

// Cost returns what the span takes of memory, in bytes, at the most that it takes on
// its way: as a message, with its attributes, events and links. It is more than
// AppendOTLP appends, and bounded by Options.MaxCost.
func (s *Span) Cost() int {
	return spanCost + len(s.Name) + len(s.TraceState) + idCost(s.ContainerID) + idCost(s.ExecID) + s.cost
}

// afford reserves memory of the span at hand, if there is that much left of
// Options.MaxCost.
func (b *Builder) afford(cost int) bool {
	if b.cost+cost > b.opts.MaxCost-spanCost {
		return false
	}
	b.cost += cost
	return true
}

// cost is that of an attribute with a key of so many bytes. The allocator rounds long
// texts up by an eighth at the most.
func (v Value) cost(key int) int {
	return attributeCost + key + len(v.Text) + len(v.Text)/8 + v.elements*elementCost
}

// densest is the most that a byte of OTLP takes in memory: two of them are an element
// of an array.
const densest = elementCost / 2

// bareItem is the length of a link without attributes, or of a short event.
const bareItem = 32

// costOf estimates the cost of a field of OTLP that is taken as it is.
func costOf(field protowire.Number, whole []byte) int {
	switch field {
	case spanAttributes:
		if !hasArray(whole) {
			return attributeCost + len(whole) + len(whole)/8
		}
		return attributeCost + densest*len(whole)
	case spanEvents, spanLinks:
		if len(whole) <= bareItem {
			return linkCost
		}
		return linkCost + densest*len(whole)
	}
	return len(whole)
}

// hasArray reports whether an attribute may have more than one value.
func hasArray(attribute []byte) bool {
	_, _, n := protowire.ConsumeTag(attribute)
	attribute, _ = protowire.ConsumeBytes(attribute[n:])
	if field, _, n := protowire.ConsumeField(attribute); field == keyValueKey && n >= 0 {
		attribute = attribute[n:]
	}
	field, wire, n := protowire.ConsumeTag(attribute)
	if n < 0 || field != keyValueValue || wire != protowire.BytesType {
		return true
	}
	any, m := protowire.ConsumeBytes(attribute[n:])
	if m < 0 || n+m != len(attribute) {
		return true
	}
	field, _, n = protowire.ConsumeField(any)
	return n != len(any) || field >= anyArray
}

// idCost is the cost of an attribute with the id of a container or an exec.
func idCost(id string) int {
	if id == "" {
		return 0
	}
	return attributeCost + len(names.ClaimedContainer) + 2*len(id)
}
