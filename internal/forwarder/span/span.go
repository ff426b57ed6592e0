package span

import (
	"bytes"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// Span is one span. Fields hold what determines its place, to be read and changed; the rest is
// OTLP bytes, as they will be sent. The zero value is an empty span, to be decoded into or
// filled in by hand.
type Span struct {
	TraceID  [16]byte
	SpanID   [8]byte
	ParentID [8]byte // zero: a root
	// TraceState is the W3C header, TraceFlags are its flags.
	TraceState string
	TraceFlags uint8
	Name       string
	Kind       tracepb.Span_SpanKind
	// Start and End are nanoseconds since 1970 by the maker's clock, at most the largest int64.
	// Start may be after End.
	Start, End uint64
	// Failed: the status is an error.
	Failed bool

	// ContainerID and ExecID are those of the request or call that the span is about. They are
	// sent as attributes. ExecID is empty for a container's first process. Both are at most 128
	// of [A-Za-z0-9._-].
	ContainerID, ExecID string
	// ContainerClaimed and ExecClaimed: only the span's maker says so. The attributes then have
	// other keys.
	ContainerClaimed, ExecClaimed bool

	// Only in a runtime's span: Method is the shim's call that it serves, as the task service
	// names it ("Create"), empty for steps within a call. Sandbox is the sandbox's id, empty if
	// the span does not name it.
	Method, Sandbox string

	cost int    // in memory, without spanCost and the texts above
	rest []byte // valid OTLP fields: attributes, events, links, status, dropped counts
	// rest contains events, or links.
	eventful, linked bool
}

// Clone returns a copy that shares no mutable memory.
func (s *Span) Clone() *Span {
	c := *s
	c.rest = bytes.Clone(s.rest)
	return &c
}

// maxReuse bounds the memory of a span that is used again, beyond what Cost says of its new
// content.
const maxReuse = 1 << 10

// Reusable reports whether to decode another span into s, which nothing refers to any more.
func (s *Span) Reusable() bool { return cap(s.rest) <= maxReuse }

// AppendElement appends the span as one element of ScopeSpans.spans: consecutive calls make the
// body of a ScopeSpans message.
func (s *Span) AppendElement(b []byte) []byte {
	at := len(b)
	return seal(s.AppendOTLP(b), at, otlpwire.ScopeSpansSpans)
}

// AppendOTLP appends the span as an opentelemetry.proto.trace.v1.Span message.
func (s *Span) AppendOTLP(b []byte) []byte {
	b = otlpwire.AppendBytes(b, otlpwire.SpanTraceID, s.TraceID[:])
	b = otlpwire.AppendBytes(b, otlpwire.SpanSpanID, s.SpanID[:])
	if s.TraceState != "" {
		b = otlpwire.AppendBytes(b, otlpwire.SpanTraceState, s.TraceState)
	}
	if s.ParentID != ([8]byte{}) {
		b = otlpwire.AppendBytes(b, otlpwire.SpanParentID, s.ParentID[:])
	}
	if s.Name != "" {
		b = otlpwire.AppendBytes(b, otlpwire.SpanName, s.Name)
	}
	if s.Kind != 0 {
		b = otlpwire.AppendVarint(b, otlpwire.SpanKind, uint64(s.Kind))
	}
	b = otlpwire.AppendFixed64(b, otlpwire.SpanStart, s.Start)
	b = otlpwire.AppendFixed64(b, otlpwire.SpanEnd, s.End)
	b = appendID(b, s.ContainerID, s.ContainerClaimed, names.Container, names.ClaimedContainer)
	b = appendID(b, s.ExecID, s.ExecClaimed, names.Exec, names.ClaimedExec)
	b = append(b, s.rest...)
	if s.TraceFlags != 0 {
		b = otlpwire.AppendFixed32(b, otlpwire.SpanFlags, uint32(s.TraceFlags))
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
	return appendAttribute(b, otlpwire.SpanAttributes, key, "", TextValue([]byte(id), len(id)))
}
