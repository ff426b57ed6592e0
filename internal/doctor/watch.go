package doctor

import (
	"context"
	"time"

	"github.com/shimtrace/shimtrace/internal/sleep"
)

// Watch makes all checks again and again, and tells what is found for the first time, or
// again after it was not, until ctx is done.
func Watch(ctx context.Context, every time.Duration, o Options, tell func(Finding) error) error {
	var before map[Finding]bool
	for {
		now := make(map[Finding]bool)
		err := Run(ctx, o, func(string) {}, func(f Finding) error {
			now[f] = true
			if before[f] {
				return nil
			}
			return tell(f)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		before = now
		if !sleep.For(ctx, every) {
			return nil
		}
	}
}
