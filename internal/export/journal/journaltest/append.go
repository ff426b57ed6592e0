// Package journaltest appends tests' spans to journals, as the product does.
package journaltest

import (
	"errors"

	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Journal is a *journal.Journal.
type Journal interface {
	AppendSpans(resource *resourcepb.Resource, scope string, spans []byte, n int) error
}

// Append appends spans, those of each scope in records of their own.
func Append(j Journal, all []*tracepb.ResourceSpans) error {
	var errs []error
	for _, rs := range all {
		for _, ss := range rs.ScopeSpans {
			spans, err := proto.Marshal(&tracepb.ScopeSpans{Spans: ss.Spans})
			if err == nil {
				err = j.AppendSpans(rs.Resource, ss.Scope.GetName(), spans, len(ss.Spans))
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
