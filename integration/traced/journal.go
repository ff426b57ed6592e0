package traced

import (
	"fmt"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// Spans reads the journal, from which nothing may be lost; but for what relays had that
// are killed under the test.
func (in *Install) Spans() ([]otlprecv.Span, error) {
	if Killing() {
		return in.SpansBut(losses.RelayDied.String())
	}
	return in.SpansBut("")
}

// SpansBut reads the journal, from which spans may be lost for one reason only.
func (in *Install) SpansBut(reason string) ([]otlprecv.Span, error) {
	var all []*tracepb.ResourceSpans
	_, err := journal.Scan(in.Journal, func(r journal.Record) error {
		if r.Kind == journal.KindDrops {
			drops, err := r.Drops()
			delete(drops, reason)
			if err == nil && len(drops) > 0 {
				err = fmt.Errorf("the journal has dropped spans: %v", drops)
			}
			return err
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
