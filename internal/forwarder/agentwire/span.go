package agentwire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Encoding is how the agent wrote a payload.
type Encoding uint8

const (
	// Bincode is what agents up to Kata 3.28 send.
	Bincode Encoding = iota + 1
	// JSON is what agents since Kata 3.29 send.
	JSON
)

// String returns the encoding's name.
func (e Encoding) String() string {
	switch e {
	case Bincode:
		return "bincode"
	case JSON:
		return "json"
	}
	return "unknown"
}

// Span is one span of the agent. What gives a span its place is in fields, to be
// read and changed; the rest is kept as the OTLP bytes that it will be sent as.
// The zero value is an empty span, to be decoded into or filled in by hand.
type Span struct {
	TraceID  [16]byte
	SpanID   [8]byte
	ParentID [8]byte // zero: a root
	// TraceState is the W3C header, TraceFlags its flags.
	TraceState string
	TraceFlags uint8
	Name       string
	Kind       tracepb.Span_SpanKind
	// Start and End are nanoseconds since 1970 by the guest's clock, at most the
	// largest int64. Nothing says that Start comes first.
	Start, End uint64
	// Failed: the status is an error.
	Failed bool

	// ContainerID and ExecID are those of the request that the span serves; they
	// are among its attributes too. ExecID is empty for a container's first
	// process. Both are at most 128 of [A-Za-z0-9._-].
	ContainerID, ExecID string

	// Encoding is how the span arrived.
	Encoding Encoding

	cost int    // in memory, beside spanCost and the texts above
	rest []byte // OTLP fields: attributes, events, links, status, dropped counts
}

// AddString adds an attribute. The caller answers for valid UTF-8 and for a key
// that the span does not have.
func (s *Span) AddString(key, text string) {
	s.addAttribute(key, value{kind: textValue, text: []byte(text)})
}

// AddBool adds an attribute, as AddString does.
func (s *Span) AddBool(key string, b bool) {
	v := value{kind: boolValue}
	if b {
		v.bits = 1
	}
	s.addAttribute(key, v)
}

func (s *Span) addAttribute(key string, v value) {
	at := len(s.rest)
	s.rest = appendAttribute(s.rest, spanAttributes, key, "", v)
	s.cost += costOf(spanAttributes, s.rest[at:])
}

// AddLink adds a link without attributes.
func (s *Span) AddLink(traceID [16]byte, spanID [8]byte) {
	at := len(s.rest)
	s.rest = appendBytes(s.rest, linkTraceID, traceID[:])
	s.rest = appendBytes(s.rest, linkSpanID, spanID[:])
	s.rest = seal(s.rest, at, spanLinks)
	s.cost += costOf(spanLinks, s.rest[at:])
}

// Size returns the length in bytes of what AppendOTLP appends.
func (s *Span) Size() int {
	n := fieldSize(len(s.TraceID)) + fieldSize(len(s.SpanID)) + len(s.rest)
	if s.ParentID != ([8]byte{}) {
		n += fieldSize(len(s.ParentID))
	}
	if s.TraceState != "" {
		n += fieldSize(len(s.TraceState))
	}
	if s.Name != "" {
		n += fieldSize(len(s.Name))
	}
	if s.Kind != 0 {
		n += 1 + protowire.SizeVarint(uint64(s.Kind))
	}
	n += 2 * (1 + 8) // times
	if s.TraceFlags != 0 {
		n += 2 + 4
	}
	return n
}

// AppendOTLP appends the span as an opentelemetry.proto.trace.v1.Span message.
func (s *Span) AppendOTLP(b []byte) []byte {
	b = appendBytes(b, spanTraceID, s.TraceID[:])
	b = appendBytes(b, spanSpanID, s.SpanID[:])
	if s.TraceState != "" {
		b = appendBytes(b, spanTraceState, s.TraceState)
	}
	if s.ParentID != ([8]byte{}) {
		b = appendBytes(b, spanParentID, s.ParentID[:])
	}
	if s.Name != "" {
		b = appendBytes(b, spanName, s.Name)
	}
	if s.Kind != 0 {
		b = appendVarint(b, spanKind, uint64(s.Kind))
	}
	b = appendFixed64(b, spanStart, s.Start)
	b = appendFixed64(b, spanEnd, s.End)
	b = append(b, s.rest...)
	if s.TraceFlags != 0 {
		b = appendFixed32(b, spanFlags, uint32(s.TraceFlags))
	}
	return b
}

// AppendScopeSpan appends the span as one element of ScopeSpans.spans, so that
// many calls after one another make the body of a ScopeSpans message.
func (s *Span) AppendScopeSpan(b []byte) []byte {
	b = protowire.AppendTag(b, scopeSpans, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(s.Size()))
	return s.AppendOTLP(b)
}

// Proto returns the span as a message of its own, at several times the cost of
// AppendOTLP.
func (s *Span) Proto() (*tracepb.Span, error) {
	m := new(tracepb.Span)
	if err := proto.Unmarshal(s.AppendOTLP(make([]byte, 0, s.Size())), m); err != nil {
		return nil, err
	}
	return m, nil
}
