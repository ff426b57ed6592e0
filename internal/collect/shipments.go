package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/client"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/export/tail"
)

// Shipment brings one journal to its collector.
type Shipment struct {
	cfg     config.Config
	console *console.Console

	mu      sync.Mutex
	status  ship.Status
	failure error // why it cannot begin
	idle    bool
}

func NewShipment(cfg config.Config, c *console.Console) *Shipment {
	return &Shipment{cfg: cfg, console: c}
}

// Ship ships what is in the journal, once, or until nothing new has come for the idle
// time (0: for ever). The error is [journal.ErrShipped] if another process ships the
// journal.
func (s *Shipment) Ship(ctx context.Context, once bool, idle time.Duration) (err error) {
	client, err := client.New(s.cfg.Export)
	if err != nil {
		return err
	}
	// What the collector refuses is counted in the journal, beside other losses.
	j := journal.New(s.cfg.Journal.Dir, export.JournalOptions(s.cfg))
	if err := j.Check(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	// Not before: another Shipment of this journal may have just ended.
	ledger, lerr := ship.OpenLedger(ship.TotalsPath(s.cfg.Journal.Dir, ""))
	s.console.Warn(lerr)
	progress := func(now ship.Status) {
		s.console.Warn(ledger.Note(now))
		s.update(now)
	}
	return (&ship.Shipper{Dir: s.cfg.Journal.Dir, Client: client, Once: once, Idle: idle, Journal: j, Progress: progress, Only: only(s.cfg.Export)}).Run(ctx)
}

func only(e config.Export) tail.Options {
	return tail.Options{Only: e.Only, SlowStart: time.Duration(e.SlowStart), Ratio: e.Ratio}
}

// update notes the progress. It warns of what the collector says of spans that it took,
// refused or failed on, and of why it cannot be reached.
func (s *Shipment) update(now ship.Status) {
	s.mu.Lock()
	said := s.status.Notice
	s.status, s.failure = now, nil
	if now.Shipped > 0 || now.Err != nil {
		s.idle = false
	}
	s.mu.Unlock()
	if now.Notice != said {
		s.console.Warn(now.Notice)
	}
	if now.Err != nil {
		s.console.Warn(fmt.Errorf("%w; trying again, and nothing is lost meanwhile", now.Err))
	}
}

// pause is the pause before shipping is tried again that could not begin or that
// another process does.
const pause = 5 * time.Second

// Run ships until ctx is done, and for a bounded time after that.
func (s *Shipment) Run(ctx context.Context, idle time.Duration) {
	for {
		err := s.Ship(ctx, false, idle)
		if ctx.Err() != nil {
			return
		}
		waited := err == nil && idle > 0
		if errors.Is(err, journal.ErrShipped) {
			s.console.Warn(fmt.Errorf("another process ships the journal %s", s.cfg.Journal.Dir))
			err = nil
		} else {
			s.console.Warn(err)
		}
		s.mu.Lock()
		s.idle, s.failure = true, err
		s.mu.Unlock()
		if waited {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// Status returns what has been shipped so far.
func (s *Shipment) Status() ship.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Line describes a status in one line.
func Line(s ship.Status) string {
	line := console.Spans(s.Shipped) + " shipped"
	rejected := 0
	for _, n := range s.Rejected {
		rejected += n
	}
	if rejected > 0 {
		line += fmt.Sprintf(", %d refused", rejected)
	}
	if s.KeptOut > 0 {
		line += fmt.Sprintf(", %d kept out", s.KeptOut)
	}
	if s.Aside > 0 {
		line += fmt.Sprintf(", %d set aside", s.Aside)
	}
	if s.Err != nil {
		line += ", trying again: " + s.Err.Error()
	}
	return line
}

// shipments are the running shipments of all journals, by directory.
type shipments struct {
	console *console.Console

	mu  sync.Mutex
	all map[string]*shipment
}

// shipment is a running Shipment.
type shipment struct {
	*Shipment
	end  context.CancelFunc
	over chan struct{}
}

// follow starts the shipments of the given configurations and ends the others.
func (s *shipments) follow(all []config.Config, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[string]*shipment)
	for _, cfg := range all {
		if cfg.Export.Endpoint == "" {
			continue
		}
		before := s.all[cfg.Journal.Dir]
		if before != nil && before.cfg.Journal == cfg.Journal && reflect.DeepEqual(before.cfg.Export, cfg.Export) {
			now[cfg.Journal.Dir] = before
			continue
		}
		ctx, end := context.WithCancel(context.Background())
		next := &shipment{NewShipment(cfg, s.console), end, make(chan struct{})}
		now[cfg.Journal.Dir] = next
		go func() {
			defer close(next.over)
			if before != nil {
				<-before.over
			}
			next.Run(ctx, idle)
		}()
	}
	for dir, before := range s.all {
		if now[dir] != before {
			before.end()
		}
	}
	s.all = now
}

// failed returns why no journal with something to ship can be shipped; nil if one can,
// or none has anything.
func (s *shipments) failed() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		idle, failure := one.state()
		if failure == nil && !idle {
			return nil
		}
		err = errors.Join(err, failure)
	}
	return err
}

// idle reports whether no journal has anything to ship.
func (s *shipments) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if idle, _ := one.state(); !idle {
			return false
		}
	}
	return true
}

func (s *Shipment) state() (idle bool, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idle, s.failure
}

// endTime bounds the wait, at the end of the process, for disks and collectors. A
// Shipper goes on for 5 s at most, unless a disk hangs.
const endTime = 7 * time.Second

// close ends all shipments.
func (s *shipments) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		one.end()
	}
	late := time.After(endTime)
	for _, one := range s.all {
		select {
		case <-one.over:
		case <-late:
			return
		}
	}
}

func (s *shipments) status() (all console.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range slices.Sorted(maps.Keys(s.all)) {
		now := s.all[dir].Status()
		all = join(all, console.Status{Line: Line(now), Matters: fmt.Sprint(now.Err == nil)})
	}
	return all
}

// join returns the two statuses as one.
func join(a, b console.Status) console.Status {
	if a.Line != "" && b.Line != "" {
		a.Line += "; "
	}
	return console.Status{Line: a.Line + b.Line, Matters: a.Matters + b.Matters, Losses: a.Losses + b.Losses}
}
