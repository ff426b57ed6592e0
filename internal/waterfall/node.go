package waterfall

import (
	"iter"
	"strconv"
)

// What packages that reason about a tree ask of its nodes and spans. Texts are as
// recorded: callers must apply Clean before they print them.

// Start returns when the span began, in nanoseconds since 1970 of the host's clock; 0
// is unknown.
func (n *Node) Start() uint64 { return n.start }

// End returns when the span ended, in nanoseconds since 1970 of the host's clock; 0 is
// unknown.
func (n *Node) End() uint64 { return n.end }

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
	for k, value := range attributes(s.details, spanAttributes) {
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
