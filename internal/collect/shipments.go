package collect

import (
	"cmp"
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
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// shipment brings one journal to one target.
type shipment struct {
	cfg     config.Config
	target  config.Target
	choice  *ship.Choice
	console *console.Console

	mu      sync.Mutex
	status  ship.Status
	failure error // why it cannot begin
	idle    bool
}

// ship ships what is in the journal, once, or until nothing new has come for the idle
// time (0: for ever). The error is [journal.ErrShipped] if another process ships the
// journal.
func (s *shipment) ship(ctx context.Context, once bool, idle time.Duration) (err error) {
	client, err := client.New(s.target)
	if err != nil {
		return err
	}
	// What the collector refuses is counted in the journal, beside other losses.
	j := journal.New(s.cfg.Journal.Dir, export.JournalOptions(s.cfg))
	if err := j.Check(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	if err := journal.Begin(s.cfg.Journal.Dir, s.target.Name); err != nil {
		return err
	}
	// Not before: another shipment to this target may have just ended.
	ledger, lerr := ship.OpenLedger(ship.TotalsPath(s.cfg.Journal.Dir, s.target.Name))
	s.warn(lerr)
	progress := func(now ship.Status) {
		s.warn(ledger.Note(now))
		s.update(now)
	}
	return (&ship.Shipper{Dir: s.cfg.Journal.Dir, Target: s.target.Name, Client: client, Once: once, Idle: idle, Journal: j, Progress: progress, Choice: s.choice}).Run(ctx)
}

func only(e config.Export) tail.Options {
	return tail.Options{Only: e.Only, SlowStart: time.Duration(e.SlowStart), Ratio: e.Ratio}
}

// warn writes a warning.
func (s *shipment) warn(err error) { s.console.Warn(s.about(err)) }

// about returns an error with the name of the target, if it has one.
func (s *shipment) about(err error) error {
	if err != nil && s.target.Name != "" {
		return &named{s.target.Name, err}
	}
	return err
}

// named is an error about a target.
type named struct {
	name string
	err  error
}

// Error implements error.
func (e *named) Error() string { return e.name + ": " + e.err.Error() }

// Unwrap returns the error.
func (e *named) Unwrap() error { return e.err }

// Cause returns what is the same at each attempt; see [console.Console.Warn].
func (e *named) Cause() string {
	cause := e.err.Error()
	var known interface{ Cause() string }
	if errors.As(e.err, &known) {
		cause = known.Cause()
	}
	return e.name + ": " + cause
}

// update notes the progress. It warns of what the collector says of spans that it took,
// refused or failed on, and of why it cannot be reached.
func (s *shipment) update(now ship.Status) {
	s.mu.Lock()
	said := s.status.Notice
	s.status, s.failure = now, nil
	if now.Shipped > 0 || now.Err != nil {
		s.idle = false
	}
	s.mu.Unlock()
	if now.Notice != said {
		s.warn(now.Notice)
	}
	if now.Err != nil {
		s.warn(fmt.Errorf("%w; trying again, and nothing is lost meanwhile", now.Err))
	}
}

// pause is how long a shipment waits before it tries again, if it could not begin or
// another process ships.
const pause = 5 * time.Second

// run ships until ctx is done, and for a bounded time after that.
func (s *shipment) run(ctx context.Context, idle time.Duration) {
	for {
		err := s.ship(ctx, false, idle)
		if ctx.Err() != nil {
			return
		}
		waited := err == nil && idle > 0
		if errors.Is(err, journal.ErrShipped) {
			s.warn(fmt.Errorf("another process ships the journal %s", s.cfg.Journal.Dir))
			err = nil
		} else {
			s.warn(err)
		}
		s.mu.Lock()
		s.idle, s.failure = true, err
		s.mu.Unlock()
		if waited {
			continue
		}
		if !sleep.For(ctx, pause) {
			return
		}
	}
}

// Shipped is what has been shipped so far of the journal in Dir to a target, whose name is
// empty if it is that of [export] itself.
type Shipped struct {
	Dir, Target string
	ship.Status
}

func (s *shipment) shipped() Shipped {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Shipped{s.cfg.Journal.Dir, s.target.Name, s.status}
}

// Line describes it in one line.
func (s Shipped) Line() string {
	line := ""
	if s.Target != "" {
		line = s.Target + ": "
	}
	line += console.Spans(s.Shipped) + " shipped"
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

// Shipments are the running shipments of journals, one for each target of each journal.
type Shipments struct {
	console *console.Console

	mu  sync.Mutex
	all map[way]*running
	// choices are by the journal's directory: all targets of a journal get the same sandboxes.
	choices map[string]*ship.Choice
	// last is closed when nothing is at work on a way; the next shipment waits for it.
	last map[way]<-chan struct{}
}

// way is a journal's directory and the name of a target.
type way struct{ dir, target string }

// NewShipments returns an empty set.
func NewShipments(c *console.Console) *Shipments {
	return &Shipments{console: c, all: make(map[way]*running), choices: make(map[string]*ship.Choice), last: make(map[way]<-chan struct{})}
}

// running is a shipment that runs.
type running struct {
	*shipment
	end context.CancelFunc
}

// Follow starts the shipments of the given configurations and ends the others. If a journal has
// other targets, nothing is kept about those that are no longer configured.
func (s *Shipments) Follow(all []config.Config, idle time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[way]*running)
	for _, cfg := range all {
		choice := s.choose(cfg)
		for _, target := range cfg.Export.All() {
			at := way{cfg.Journal.Dir, target.Name}
			before := s.all[at]
			if before != nil && before.same(cfg, target) {
				now[at] = before
				continue
			}
			now[at] = s.start(at, &shipment{cfg: cfg, target: target, choice: choice, console: s.console}, idle)
		}
	}
	for at, before := range s.all {
		if now[at] != before {
			before.end()
		}
	}
	s.all = now
	maps.DeleteFunc(s.last, func(at way, over <-chan struct{}) bool {
		select {
		case <-over:
			return s.all[at] == nil
		default:
			return false
		}
	})
	for _, cfg := range all {
		s.forget(cfg)
	}
}

// choose returns a journal's choice of what is shipped.
func (s *Shipments) choose(cfg config.Config) *ship.Choice {
	choice := s.choices[cfg.Journal.Dir]
	if choice == nil && cfg.Export.Ships() {
		choice = ship.NewChoice(cfg.Journal.Dir, only(cfg.Export))
		s.choices[cfg.Journal.Dir] = choice
	} else if choice != nil {
		choice.Set(only(cfg.Export))
	}
	return choice
}

// same reports whether a shipment is as configured.
func (s *shipment) same(cfg config.Config, target config.Target) bool {
	return s.cfg.Journal == cfg.Journal && only(s.cfg.Export) == only(cfg.Export) && reflect.DeepEqual(s.target, target)
}

// start starts a shipment when its way is free.
func (s *Shipments) start(at way, one *shipment, idle time.Duration) *running {
	ctx, end := context.WithCancel(context.Background())
	s.after(at, func() { one.run(ctx, idle) })
	return &running{one, end}
}

// after calls fn when the way is free.
func (s *Shipments) after(at way, fn func()) {
	before, over := s.last[at], make(chan struct{})
	s.last[at] = over
	go func() {
		defer close(over)
		if before != nil {
			<-before
		}
		fn()
	}()
}

// forget removes what is kept of a journal's targets that are not configured, if others
// are.
func (s *Shipments) forget(cfg config.Config) {
	if !cfg.Export.Ships() {
		return
	}
	for _, t := range journal.Targets(cfg.Journal.Dir) {
		at := way{cfg.Journal.Dir, t.Name}
		if s.all[at] != nil {
			continue
		}
		s.after(at, func() {
			if err := ship.Forget(at.dir, at.target); err != nil {
				s.console.Warn(fmt.Errorf("what is kept of the target %s: %w", config.Target{Name: at.target}, err))
			}
		})
	}
}

// failed returns why no journal with something to ship can be shipped; nil if one can,
// or none has anything.
func (s *Shipments) failed() (err error) {
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
func (s *Shipments) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if idle, _ := one.state(); !idle {
			return false
		}
	}
	return true
}

func (s *shipment) state() (idle bool, failure error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.idle, s.failure
}

// endTime bounds the wait, at the end of the process, for disks and collectors. A
// Shipper goes on for 5 s at most, unless a disk hangs.
const endTime = 7 * time.Second

// Close ends all shipments.
func (s *Shipments) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		one.end()
	}
	late := time.After(endTime)
	for _, over := range s.last {
		select {
		case <-over:
		case <-late:
			return
		}
	}
}

// Shipped returns what has been shipped so far, by journal and target.
func (s *Shipments) Shipped() (all []Shipped) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range slices.SortedFunc(maps.Keys(s.all), func(a, b way) int {
		return cmp.Or(cmp.Compare(a.dir, b.dir), cmp.Compare(a.target, b.target))
	}) {
		all = append(all, s.all[at].shipped())
	}
	return all
}

func (s *Shipments) status() (all console.Status) {
	for _, now := range s.Shipped() {
		all = join(all, console.Status{Line: now.Line(), Matters: fmt.Sprint(now.Err == nil)})
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
