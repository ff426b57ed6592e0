// Package relays is the operator's side of the host's relays: it finds those that a
// name means, asks them what they do, and switches their tracing on or off. It speaks to
// them through package control.
package relays

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/shim/control"
)

// Operator asks the relays below a state directory.
type Operator struct {
	Dir string
	// Out receives the answers, Warn what one would not expect.
	Out  io.Writer
	Warn func(format string, args ...any)
}

// Ask has the relays switched that names mean ("all": every one that can be), and prints the
// answers.
func (o Operator) Ask(ctx context.Context, names []string, r control.Request, asJSON bool) error {
	all, err := survey(ctx, o.Dir)
	if err != nil {
		return err
	}
	named, err := choose(all, names, r.Do)
	if err != nil {
		return err
	}
	askAll(ctx, named, r)
	named = withoutEnded(named, names)
	if err := o.report(named, r.Do, asJSON); err != nil {
		return err
	}
	if n := countStatic(all); n > 0 && slices.Equal(names, []string{"all"}) {
		o.Warn("%d more cannot be switched: %s", n, whyStatic)
	}
	return failures(named)
}

// failures joins the errors of the relays. If all have ended since they were found,
// nothing of these names runs, which is no failure.
func failures(relays []*status) error {
	var errs []error
	ended := 0
	for _, r := range relays {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.relay.Name(), r.err))
		}
		if r.ended {
			ended++
		}
	}
	if ended == len(relays) && ended > 0 {
		return console.NothingFound("%w", errors.Join(errs...))
	}
	return errors.Join(errs...)
}

// clock formats a time for tables, with the time left until then.
func clock(t time.Time) string {
	return fmt.Sprintf("%s (%s)", t.Local().Format(time.TimeOnly), max(0, time.Until(t).Round(time.Second)))
}
