package agentwire

import (
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// fate is what happens to an attribute, by its key.
type fate uint8

const (
	reduce  fate = 0
	keep    fate = 1
	request fate = 2 // yields ids; may be kept too
	drop    fate = 4
)

// fateOf decides by a key and the size it had before it was cut.
func (d *Decoder) fateOf(key []byte, size int) fate {
	if len(key) < size {
		return drop
	}
	f := reduce
	if d.keep.has(key) && !reserved(key) {
		f = keep
	}
	if string(key) == requestKey {
		f |= request
	}
	return f
}

// reserved keys are set by the host alone, whatever is kept.
func reserved(key []byte) bool {
	return string(key) == containerIDKey || strings.HasPrefix(string(key), "shimtrace.")
}

// want is how many bytes of a value are of use.
func (d *Decoder) want(f fate) int {
	switch {
	case f&keep != 0:
		return d.opts.MaxValue
	case f&request != 0:
		return requestHead
	}
	return 0
}

// sizeSuffix ends the key of an attribute that became its size.
const sizeSuffix = ".size"

// attributes is one list of attributes being written.
type attributes struct {
	field   protowire.Number
	n       int
	dropped uint64
}

func (d *Decoder) put(l *attributes, key []byte, f fate, v value) {
	if f&request != 0 && v.kind == textValue {
		d.putIDs(l, v.text)
		if f&keep == 0 {
			d.reduced++
			return
		}
	}
	kept, suffix := v, ""
	if f&keep == 0 || v.kind == sizeOnly {
		kept, suffix = value{kind: intValue, bits: uint64(v.size)}, sizeSuffix
	}
	if f == drop || !d.room(l, kept.cost(len(key)+len(suffix))) {
		l.dropped++
		d.dropped++
		return
	}
	if suffix != "" {
		d.reduced++
	} else if v.kind == textValue && len(v.text) < v.size {
		d.cut++
	}
	d.rest = appendAttribute(d.rest, l.field, key, suffix, kept)
}

func (d *Decoder) putIDs(l *attributes, req []byte) {
	if container, exec := requestIDs(req); container != nil {
		d.putProcess(l, container, exec)
	}
}

// putProcess puts the ids of a container and, where it is not nil, of an exec.
func (d *Decoder) putProcess(l *attributes, container, exec []byte) {
	if l.field == spanAttributes {
		d.span.ContainerID, d.span.ExecID = d.names.get(container), d.names.get(exec)
	}
	d.putID(l, containerIDKey, container)
	if exec != nil {
		d.putID(l, execIDKey, exec)
	}
}

func (d *Decoder) putID(l *attributes, key string, id []byte) {
	if v := (value{kind: textValue, text: id}); d.room(l, v.cost(len(key))) {
		d.rest = appendAttribute(d.rest, l.field, key, "", v)
	}
}

// room reserves an attribute's place.
func (d *Decoder) room(l *attributes, cost int) bool {
	if l.n == d.opts.MaxAttributes || !d.afford(cost) {
		return false
	}
	l.n++
	return true
}

// putDropped appends a count of what a list lost, there and here.
func (d *Decoder) putDropped(field protowire.Number, agent uint32, here uint64) {
	if n := uint64(agent) + here; n > 0 {
		d.rest = appendVarint(d.rest, field, min(n, math.MaxUint32))
	}
}

// items is a list of events or links being written.
type items struct {
	field, droppedField protowire.Number
	limit, cost, n      int
	dropped             uint64
}

// mark is where an item begins.
type mark struct{ rest, cost int }

func (d *Decoder) mark() mark { return mark{len(d.rest), d.cost} }

func (d *Decoder) events() items {
	return items{field: spanEvents, droppedField: spanDroppedEvents, limit: d.opts.MaxEvents, cost: eventCost}
}

func (d *Decoder) links() items {
	return items{field: spanLinks, droppedField: spanDroppedLinks, limit: d.opts.MaxLinks, cost: linkCost}
}

// sealItem ends the item begun at: it becomes part of the span, or is dropped
// where it cannot be one or there are enough.
func (d *Decoder) sealItem(l *items, at mark, valid bool) {
	if !valid || l.n == l.limit || !d.afford(l.cost+len(d.rest)-at.rest) {
		d.rest, d.cost = d.rest[:at.rest], at.cost
		l.dropped++
		d.dropped++
		return
	}
	l.n++
	d.rest = seal(d.rest, at.rest, l.field)
}
