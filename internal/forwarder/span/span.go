package span

import (
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// Span is one span. What gives it its place is in fields, to be read and changed; the
// rest is kept as the OTLP bytes that it will be sent as. The zero value is an empty
// span, to be decoded into or filled in by hand.
type Span struct {
	TraceID  [16]byte
	SpanID   [8]byte
	ParentID [8]byte // zero: a root
	// TraceState is the W3C header, TraceFlags its flags.
	TraceState string
	TraceFlags uint8
	Name       string
	Kind       tracepb.Span_SpanKind
	// Start and End are nanoseconds since 1970 by the clock of who made the span, at
	// most the largest int64. Nothing says that Start comes first.
	Start, End uint64
	// Failed: the status is an error.
	Failed bool

	// ContainerID and ExecID are those of the request or call that the span is about,
	// and among its attributes. ExecID is empty for a container's first process. Both
	// are at most 128 of [A-Za-z0-9._-].
	ContainerID, ExecID string
	// ContainerClaimed and ExecClaimed: only who made the span says so. The attributes
	// have other keys then.
	ContainerClaimed, ExecClaimed bool

	// Of a runtime's span: Method is the shim's call that it is, as the task service
	// names it ("Create"), empty for what happens within one; Sandbox is the sandbox's
	// id, where the span names it, else empty.
	Method, Sandbox string

	cost int    // in memory, beside spanCost and the texts above
	rest []byte // OTLP fields: attributes, events, links, status, dropped counts
}

// Attributes that the host alone sets.
const (
	ContainerIDKey = "container.id"
	ExecIDKey      = "shimtrace.exec.id"
	// ClaimedContainerIDKey and ClaimedExecIDKey are what the guest says without proof.
	// The Go runtime gives execs names of its own, which are among them unless its
	// requests are relayed.
	ClaimedContainerIDKey = "shimtrace.claimed.container.id"
	ClaimedExecIDKey      = "shimtrace.claimed.exec.id"
)

// AddString adds an attribute. The caller answers for valid UTF-8 and for a key
// that the span does not have.
func (s *Span) AddString(key, text string) {
	s.add(key, TextValue([]byte(text), len(text)))
}

// AddBool adds an attribute, as AddString does.
func (s *Span) AddBool(key string, b bool) { s.add(key, BoolValue(b)) }

// AddInt adds an attribute, as AddString does.
func (s *Span) AddInt(key string, n int64) { s.add(key, IntValue(n)) }

func (s *Span) add(key string, v Value) {
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
	b = appendID(b, s.ContainerID, s.ContainerClaimed, ContainerIDKey, ClaimedContainerIDKey)
	b = appendID(b, s.ExecID, s.ExecClaimed, ExecIDKey, ClaimedExecIDKey)
	b = append(b, s.rest...)
	if s.TraceFlags != 0 {
		b = appendFixed32(b, spanFlags, uint32(s.TraceFlags))
	}
	return b
}

func appendID(b []byte, id string, claimed bool, key, claimedKey string) []byte {
	if id == "" {
		return b
	}
	if claimed {
		key = claimedKey
	}
	return appendAttribute(b, spanAttributes, key, "", TextValue([]byte(id), len(id)))
}
