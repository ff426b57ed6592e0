package otlprecv

import (
	"encoding/hex"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/otlpvalue"
)

// A Span is a received span with what it shares with others: the embedded
// message has its name, kind, status, events and links.
type Span struct {
	*tracepb.Span
	TraceID  string // in hexadecimal, like the other ids
	ID       string
	ParentID string         // "" for a root
	Attrs    map[string]any // values are string, bool, int64, float64, []byte, []any or map[string]any
	Resource map[string]any
	Scope    string
}

// Service is the resource's service.name.
func (s Span) Service() string {
	name, _ := s.Resource["service.name"].(string)
	return name
}

// Start is when the span began.
func (s Span) Start() time.Time { return time.Unix(0, int64(s.StartTimeUnixNano)) }

// End is when the span ended.
func (s Span) End() time.Time { return time.Unix(0, int64(s.EndTimeUnixNano)) }

// Named returns the spans of that name.
func Named(spans []Span, name string) []Span {
	var found []Span
	for _, s := range spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

func names(spans []Span) []string {
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
	}
	return names
}

// Flatten returns the spans of OTLP messages, wherever these come from.
func Flatten(all []*tracepb.ResourceSpans) []Span {
	var spans []Span
	for _, rs := range all {
		resource := otlpvalue.Map(rs.GetResource().GetAttributes())
		for _, ss := range rs.GetScopeSpans() {
			for _, s := range ss.GetSpans() {
				spans = append(spans, Span{
					Span:     s,
					TraceID:  hex.EncodeToString(s.GetTraceId()),
					ID:       hex.EncodeToString(s.GetSpanId()),
					ParentID: hex.EncodeToString(s.GetParentSpanId()),
					Attrs:    otlpvalue.Map(s.GetAttributes()),
					Resource: resource,
					Scope:    ss.GetScope().GetName(),
				})
			}
		}
	}
	return spans
}

func flatten(requests []Request) []Span {
	var spans []Span
	for _, req := range requests {
		spans = append(spans, Flatten(req.Body.GetResourceSpans())...)
	}
	return spans
}
