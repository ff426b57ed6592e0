package process

import (
	"context"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/forwarder/route"
)

// guardCollect has the host's collecting process ended when it does not answer, so that
// no runtime waits for it: one process of the host pings it, not each relay.
func guardCollect(ctx context.Context, stateDir string, logf func(format string, args ...any)) {
	dir := export.CollectDir(config.Config{Relay: config.Relay{StateDir: stateDir}})
	export.GuardCollect(ctx, stateDir, func(answer string) func() {
		return route.Ending(dir, strings.Fields(answer), func(err error) { logf("guard: %v", err) })
	}, logf)
}
