// Package relays is what the operator does with the relays of a host: finds those that a
// name means, asks them what they trace, and has them switch it on or off. It speaks with
// them by package control.
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
	// Out is what they say printed to, Warn is told what is not as one may think.
	Out  io.Writer
	Warn func(format string, args ...any)
}

// Ask asks the relays that names mean, "all" or none: all that can be asked, and prints
// what they say.
func (o Operator) Ask(ctx context.Context, names []string, r control.Request, asJSON bool) error {
	all, err := survey(ctx, o.Dir)
	if err != nil {
		return err
	}
	named, err := choose(all, names, r.Do)
	if err != nil {
		return err
	}
	if r.Do == control.DoStatus {
		o.lookForGuard(ctx, named)
	} else {
		askAll(ctx, named, r)
		named = withoutEnded(named, names)
	}
	if err := o.report(named, r.Do, asJSON); err != nil {
		return err
	}
	if n := countStatic(all); n > 0 && r.Do != control.DoStatus && slices.Equal(names, []string{"all"}) {
		o.Warn("%d more cannot be switched: %s", n, whyStatic)
	}
	return failures(named)
}

// failures is what goes wrong with relays, in one error. That all of them have ended
// since they were found is not a failure: nothing of these names runs.
func failures(relays []*status) error {
	var errs []error
	ended := 0
	for _, r := range relays {
		if r.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.name(), r.err))
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

// clock is a time as tables show it, with what is left of it.
func clock(t time.Time) string {
	return fmt.Sprintf("%s (%s)", t.Local().Format(time.TimeOnly), max(0, time.Until(t).Round(time.Second)))
}
