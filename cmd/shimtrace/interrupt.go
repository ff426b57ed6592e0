package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// tidyTime is how long a command has to put away what it holds once it is interrupted
// by a person. A service manager's SIGTERM leaves it its own bounds.
const tidyTime = time.Second

// untilSignal returns a context that is done at the first SIGINT or SIGTERM, for
// commands that hold what others must not lose. If such a command has not ended in time,
// or is told again, the signal ends it. All other commands never catch signals: these
// end them at once, whatever they are waiting for.
func untilSignal(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ended := make(chan struct{})
	go func() {
		var first os.Signal
		select {
		case first = <-signals:
		case <-ended:
			return
		}
		cancel()
		var late <-chan time.Time
		if first == syscall.SIGINT {
			late = time.After(tidyTime)
		}
		select {
		case <-late:
		case <-signals:
		case <-ended:
			return
		}
		signal.Reset(first)
		_ = syscall.Kill(os.Getpid(), first.(syscall.Signal))
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(ended)
		cancel()
	}
}
