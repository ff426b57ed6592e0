package traced

import (
	"bytes"
	"errors"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/explain/causes"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Explain explains what the journal has of a sandbox so far, nil if that is nothing.
func (in *Install) Explain(sandbox string) (*explain.Explanation, error) {
	var all []journal.Record
	x, losses := waterfall.NewIndex(), []causes.Loss(nil)
	_, err := journal.Scan(in.Journal, func(r journal.Record) error {
		r.Payload = bytes.Clone(r.Payload)
		switch r.Kind {
		case journal.KindDrops:
			drops, err := r.Drops()
			for reason, n := range drops {
				losses = append(losses, causes.Loss{At: r.Time, Reason: reason, Spans: n})
			}
			return err
		case journal.KindCarried:
			return nil
		case journal.KindPosted:
			all = append(all, r)
			return x.AddPosted(r.Payload, r.Time)
		default:
			all = append(all, r)
			return x.Add(r.Payload, r.Time)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, story := range x.Stories() {
		if story.Sandbox != sandbox {
			continue
		}
		b := waterfall.NewBuilder(story, waterfall.Limits{}, true)
		var errs []error
		for _, r := range all {
			if r.Kind == journal.KindPosted {
				errs = append(errs, b.AddPosted(r.Payload))
			} else {
				errs = append(errs, b.Add(r.Payload))
			}
		}
		return explain.Explain(story, b.Tree(), losses), errors.Join(errs...)
	}
	return nil, nil
}
