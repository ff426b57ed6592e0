package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// tidyTime is how long a command may take to clean up after a person's interrupt. After
// a service manager's SIGTERM it keeps its own bounds.
const tidyTime = time.Second

// untilSignal returns a context that ends at the first SIGINT or SIGTERM, for commands
// that hold what must not be lost. If the command has not ended in time, or a second
// signal comes, the signal kills it. All other commands never catch signals, which end
// them at once whatever they wait for.
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
