package waterfall

import (
	"iter"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
	"github.com/shimtrace/shimtrace/internal/protofields"
)

// Interval is a stretch of time, in nanoseconds since 1970. 0 is an unknown time.
type Interval struct{ From, To uint64 }

// Length returns how long the interval lasts.
func (i Interval) Length() time.Duration { return time.Duration(i.To - i.From) }

// Intersect returns the time that both intervals cover, the zero value if there is none.
func (i Interval) Intersect(o Interval) Interval {
	i.From, i.To = max(i.From, o.From), min(i.To, o.To)
	if i.From >= i.To {
		return Interval{}
	}
	return i
}

// What packages that reason about a tree ask of its nodes and spans. Texts are as
// recorded: callers must apply Clean before they print them.

// Start returns when the span began, in nanoseconds since 1970 of the host's clock; 0
// is unknown.
func (n *Node) Start() uint64 { return n.start }

// End returns when the span ended, in nanoseconds since 1970 of the host's clock; 0 is
// unknown.
func (n *Node) End() uint64 { return n.end }

// Interval returns when the node's span lasted; zero if that is unknown. An absent span
// is at its first child's start, with no length.
func (n *Node) Interval() Interval { return Interval{n.start, n.end} }

// Trace returns the trace that the span is in.
func (n *Node) Trace() trace.TraceID { return n.key.trace }

// Name returns the span's name as recorded, "" of an absent span.
func (n *Node) Name() string {
	if n.Span == nil {
		return ""
	}
	return n.Span.Name
}

// Title returns what a picture calls the node: the span's name without the package of a
// call ("Task/Create"), or what is known of an absent span. It is not cleaned.
func (n *Node) Title() string {
	switch n.Place {
	case absent:
		return absentTitle
	case unstarted:
		return unstartedTitle
	}
	return short(n.Span.Name)
}

// Parent returns the node above, nil at a root.
func (n *Node) Parent() *Node { return n.parent }

// Maker returns who made the span.
func (n *Node) Maker() Maker { return n.by }

// Service returns the resource's service.name, of whoever made the span.
func (n *Node) Service() string { return n.service }

// Container returns the container that the span names, "" if it names none.
func (s *Span) Container() string { return s.text.container }

// Exec returns the exec that the span names, "" if it names none.
func (s *Span) Exec() string { return s.text.exec }

// Code returns the span's error.type, or else its status code in RPCs.
func (s *Span) Code() string { return s.text.code }

// Message returns the failed span's message.
func (s *Span) Message() string { return s.text.message }

// Attr returns an attribute's value as text, "" if the span has none by that key or the
// tree was built without details.
func (s *Span) Attr(key string) string {
	for k, value := range attributes(s.details, otlpwire.SpanAttributes) {
		if string(k) == key {
			return valueText(value, 0)
		}
	}
	return ""
}

// Number returns an attribute that is a number, 0 if there is none by that key or the
// tree was built without details.
func (s *Span) Number(key string) float64 {
	n, err := strconv.ParseFloat(s.Attr(key), 64)
	if err != nil {
		return 0
	}
	return n
}

// Events yields the time and the name of each of the span's first 64 events.
func (s *Span) Events() iter.Seq2[uint64, string] {
	return func(yield func(uint64, string) bool) {
		for _, e := range s.events {
			if !yield(e.at, e.name) {
				return
			}
		}
	}
}

// Container returns the container that the span is about: the one that it names, or the
// nearest span above.
func (n *Node) Container() string {
	if n.Span != nil && n.Span.text.container != "" {
		return n.Span.text.container
	}
	return n.above().container
}

// Attributes yields the span's attributes as text, at most some 4 KiB of each. There are
// none in a tree that was built without details.
func (s *Span) Attributes() iter.Seq2[string, string] {
	return texts(s.details, otlpwire.SpanAttributes)
}

// Event is something that happened at a moment of a span.
type Event struct {
	// At is in nanoseconds since 1970.
	At   uint64
	Name string
	msg  []byte
}

// Attributes yields the event's attributes as text, at most some 4 KiB of each.
func (e Event) Attributes() iter.Seq2[string, string] { return texts(e.msg, otlpwire.EventAttributes) }

// DetailedEvents yields all of the span's events with their attributes; none in a tree
// that was built without details.
func (s *Span) DetailedEvents() iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for c := protofields.Of(s.details); c.Next(); {
			if c.Is(otlpwire.SpanEvents) && !yield(eventOf(c.Bytes)) {
				return
			}
		}
	}
}

func eventOf(msg []byte) Event {
	e := Event{msg: msg}
	for c := protofields.Of(msg); c.Next(); {
		switch {
		case c.Has(otlpwire.EventTime, protowire.Fixed64Type):
			e.At = c.Value
		case c.Is(otlpwire.EventName):
			e.Name = string(c.Bytes[:min(len(c.Bytes), maxText)])
		}
	}
	return e
}

// texts yields the attributes in field num of a message as text.
func texts(msg []byte, num protowire.Number) iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		for key, value := range attributes(msg, num) {
			if !yield(string(key[:min(len(key), maxText)]), valueText(value, 0)) {
				return
			}
		}
	}
}

// All yields the nodes with their level, parents before their children, in the order of
// the picture. Roots are at level 1.
func (t *Tree) All() iter.Seq2[*Node, int] {
	return func(yield func(*Node, int) bool) {
		type item struct {
			node  *Node
			level int
		}
		var stack []item
		push := func(nodes []*Node, level int) {
			for i := len(nodes) - 1; i >= 0; i-- {
				stack = append(stack, item{nodes[i], level})
			}
		}
		push(t.Roots, 1)
		for len(stack) > 0 {
			it := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if !yield(it.node, it.level) {
				return
			}
			push(it.node.Children, it.level+1)
		}
	}
}
