package collect

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/ship"
)

// Once ships the present content of a journal to all of its targets. The error includes
// [journal.ErrShipped] if another process does.
func Once(ctx context.Context, cfg config.Config, c *console.Console) error {
	choice := ship.NewChoice(cfg.Journal.Dir, only(cfg.Export))
	var all []*shipment
	for _, target := range cfg.Export.All() {
		all = append(all, &shipment{cfg: cfg, target: target, choice: choice, console: c})
	}
	status := func() (sum console.Status) {
		for _, one := range all {
			sum = join(sum, console.Status{Line: one.shipped().Line()})
		}
		return sum
	}
	watched, stop := context.WithCancel(ctx)
	var watching, shipping sync.WaitGroup
	watching.Go(func() { c.Watch(watched, time.Second, status) })
	errs := make([]error, len(all))
	for i, one := range all {
		shipping.Go(func() { errs[i] = one.about(one.ship(ctx, true, 0)) })
	}
	shipping.Wait()
	stop()
	watching.Wait()
	c.End(status().Line)
	return errors.Join(errs...)
}
