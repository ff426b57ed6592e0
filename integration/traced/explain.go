package traced

import (
	"bytes"
	"errors"

	"github.com/shimtrace/shimtrace/internal/explain"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Explain explains what the journal has of a sandbox so far, nil if that is nothing.
func (in *Install) Explain(sandbox string) (*explain.Explanation, error) {
	var all []journal.Record
	x, lost := waterfall.NewIndex(), make(map[string]int)
	_, err := journal.Scan(in.Journal, func(r journal.Record) error {
		r.Payload = bytes.Clone(r.Payload)
		switch r.Kind {
		case journal.KindDrops, journal.KindCarried:
			drops, err := r.Drops()
			for reason, n := range drops {
				lost[reason] += n
			}
			return err
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
		return explain.Explain(story, b.Tree(), lost), errors.Join(errs...)
	}
	return nil, nil
}
