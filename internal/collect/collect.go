package collect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/collect/metrics"
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// ErrRunning is returned by Run while another process collects for the host.
var ErrRunning = errors.New("another process collects for this host already")

// Options say what is collected.
type Options struct {
	// Configurations are those of all journals, the common one first; see
	// [config.Journals].
	Configurations []config.Config
	// Reload returns new Configurations when they have changed, otherwise nil.
	Reload func() []config.Config
	// Listen says to open the endpoint before a relay asks for it.
	Listen bool
	// Idle is how long Run goes on without relays and without anything to ship; 0: for
	// ever.
	Idle time.Duration
	// Wait says to wait while another process collects, instead of returning ErrRunning.
	Wait bool
	// Version is the program's, for metrics.
	Version string
}

// Run collects until ctx is done or nothing is left to do.
func Run(ctx context.Context, o Options, c *console.Console) error {
	for {
		err := run(ctx, o, c)
		if errors.Is(err, ErrRunning) && o.Wait {
			c.Warn(fmt.Errorf("%w: waiting for its end", err))
			if !sleep.For(ctx, turnInterval) {
				return nil
			}
			continue
		}
		// A process may have appended, and found the lock held, just when this one gave up.
		if err != nil || ctx.Err() != nil || !pending(o.Configurations) {
			return err
		}
	}
}

// pending reports whether a shipped journal has something to ship.
func pending(all []config.Config) bool {
	for _, cfg := range all {
		for _, target := range cfg.Export.All() {
			if ship.Pending(cfg.Journal.Dir, target.Name) {
				return true
			}
		}
	}
	return false
}

const (
	// turnInterval is the pause between attempts to take the place of a process that
	// collects.
	turnInterval = time.Second
	// lookInterval is the pause between looks at what is to be done.
	lookInterval = 250 * time.Millisecond
	// slowInterval is the pause between looks at files, and between counts of losses.
	slowInterval = 5 * time.Second
)

func run(ctx context.Context, o Options, c *console.Console) error {
	p, err := takeExclusive(o.Configurations[0])
	if errors.Is(err, host.ErrLocked) {
		return ErrRunning
	}
	if err != nil {
		return err
	}
	defer p.lock.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := newReception(o.Configurations[0], p, c)
	pings, err := keeper.Answer(export.CollectLock(o.Configurations[0]), r.state, r.take)
	if err != nil {
		p.relays.Close()
		return err
	}
	defer pings.Close()
	r.take(p.left)
	r.wanted = o.Listen
	if err := r.follow(); err != nil && o.Listen {
		p.relays.Close()
		return err
	}
	c.Warn(r.programs.follow(o.Configurations[0].OTLP))

	var background sync.WaitGroup
	background.Go(func() { giveBack(ctx, r.counters.Bodies.Load) })
	s := NewShipments(c)
	s.Follow(o.Configurations, o.Idle)
	told := &metrics.Sender{Version: o.Version, Warn: c.Warn}
	told.Follow(o.Configurations)
	status := func() console.Status { return join(join(r.status(), r.programs.status()), s.status()) }
	background.Go(func() { c.Watch(ctx, 2*lookInterval, status) })
	received := make(chan struct{})
	go func() {
		defer close(received)
		r.run(ctx)
	}()
	failure := look(ctx, o, r, s, told)
	stop()
	<-received
	s.Close()
	told.Close()
	background.Wait()
	c.End(status().Line)
	return failure
}

// look keeps reception and shipments up to date until ctx is done or nothing is left to
// do.
func look(ctx context.Context, o Options, r *reception, s *Shipments, told *metrics.Sender) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	busy, slow := time.Now(), time.Now()
	otlp, tells := o.Configurations[0].OTLP, metrics.Sends(o.Configurations[0])
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := time.Now()
		late := now.Sub(slow) >= slowInterval
		if late {
			slow = now
			r.tell()
			r.console.Warn(r.programs.follow(otlp))
			if tells && anyRelay(o.Configurations[0]) {
				busy = now // they have something to tell
			}
		}
		if all := o.Reload(); all != nil {
			r.change(all[0])
			otlp = all[0].OTLP
			r.console.Warn(r.programs.follow(otlp))
			s.Follow(all, o.Idle)
			told.Follow(all)
			tells = metrics.Sends(all[0])
			r.console.Info("the configuration has changed, and is in effect%s", except(o.Configurations[0].ForNewCollect(all[0])))
		}
		relays := r.router.Snapshot().Relays > 0
		if late || relays && !r.wanted {
			r.wanted = r.wanted || relays
			r.console.Warn(r.follow())
		}
		if relays || len(otlp.Listen) > 0 {
			busy = now
			continue
		}
		if err := s.failed(); err != nil {
			return err
		}
		if o.Idle > 0 && now.Sub(busy) >= o.Idle && s.idle() {
			return nil
		}
	}
}

// except says which keys are not in effect.
func except(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return ", but for " + strings.Join(keys, ", ") + ": these are when shimtrace collect starts the next time"
}

// anyRelay reports whether the host has a relay.
func anyRelay(cfg config.Config) bool {
	all, err := control.List(cfg.Relay.StateDir)
	return err == nil && len(all) > 0
}
