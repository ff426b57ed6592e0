package traced

import (
	"fmt"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/internal/export/journal"
)

// Spans reads the journal.
func (in *Install) Spans() ([]otlprecv.Span, error) {
	var all []*tracepb.ResourceSpans
	_, err := journal.Scan(in.Journal, func(r journal.Record) error {
		if r.Kind == journal.KindDrops {
			drops, err := r.Drops()
			return fmt.Errorf("the journal has dropped spans: %v, %w", drops, err)
		}
		td, err := r.Traces()
		if err != nil {
			return err
		}
		all = append(all, td.GetResourceSpans()...)
		return nil
	})
	return otlprecv.Flatten(all), err
}
