package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/keeper"
	"github.com/shimtrace/shimtrace/internal/relays"
)

// Looker takes pictures of a host, one after another. It is not safe for concurrent use.
type Looker struct {
	// StateDir is where relays, guard and collecting process are found; Journals are the
	// configurations with all journals.
	StateDir string
	Journals []config.Config
	// Names say which relays; see [relays.Look].
	Names []string
	// Wait bounds the time for a picture.
	Wait time.Duration

	asking    map[string]chan struct{} // closed when the question is answered
	surveyors map[string]*journal.Surveyor
}

// question is put to one of those that a picture is of. ask may take longer than ctx; what
// it returns puts the answer into the picture, and late says that there is none.
type question struct {
	of   string
	ask  func(ctx context.Context) func(*Picture)
	late func(*Picture)
}

// grace: the last 1/grace of Wait is for the answers that say that others have not come.
const grace = 4

// Look takes a picture.
func (l *Looker) Look(ctx context.Context) Picture {
	end := time.After(l.Wait)
	ctx, cancel := context.WithTimeout(ctx, l.Wait-l.Wait/grace)
	defer cancel()
	p := Picture{Time: time.Now()}
	type answer struct {
		of  string
		put func(*Picture)
	}
	answers := make(chan answer, 4+len(l.Journals))
	open := make(map[string]func(*Picture))
	for _, q := range l.questions() {
		open[q.of] = q.late
		if !l.begin(q.of) {
			continue // it still hangs
		}
		done := l.asking[q.of]
		go func() {
			put := q.ask(ctx)
			close(done)
			answers <- answer{q.of, put}
		}()
	}
	for late := false; len(open) > 0 && !late; {
		select {
		case a := <-answers:
			a.put(&p)
			delete(open, a.of)
		case <-end:
			late = true
		}
	}
	for _, of := range slices.Sorted(maps.Keys(open)) {
		open[of](&p)
		p.Silent = append(p.Silent, of)
	}
	p.join(l.Journals)
	return p
}

// begin reports whether a question may be asked: the last one of its kind has been answered.
func (l *Looker) begin(of string) bool {
	if l.asking == nil {
		l.asking = make(map[string]chan struct{})
	}
	if last := l.asking[of]; last != nil {
		select {
		case <-last:
		default:
			return false
		}
	}
	l.asking[of] = make(chan struct{})
	return true
}

func (l *Looker) questions() []question {
	all := []question{
		{"relays", l.relays, func(p *Picture) { p.none(errors.New("the relays' directory does not answer")) }},
		{"guard", l.guard, func(p *Picture) { p.Guard = &Guard{Error: "it does not answer"} }},
		{"collect", l.collect, func(p *Picture) { p.Collect = &Collect{State: "silent"} }},
	}
	seen := make(map[string]bool)
	for _, cfg := range l.Journals {
		dir := cfg.Journal.Dir
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if l.surveyors == nil {
			l.surveyors = make(map[string]*journal.Surveyor)
		}
		s := l.surveyors[dir]
		if s == nil {
			s = journal.NewSurveyor(dir)
			l.surveyors[dir] = s
		}
		all = append(all, question{"journal " + dir,
			func(context.Context) func(*Picture) {
				j := look(cfg, s)
				return func(p *Picture) { p.Journals = append(p.Journals, j) }
			},
			func(p *Picture) {
				p.Journals = append(p.Journals, Journal{Dir: dir, Error: "its disk does not answer"})
			}})
	}
	return all
}

func (l *Looker) relays(ctx context.Context) func(*Picture) {
	all, err := relays.Look(ctx, l.StateDir, l.Names)
	return func(p *Picture) {
		p.Relays = all
		if err != nil {
			p.none(err)
		}
	}
}

// none says why there are no relays.
func (p *Picture) none(err error) { p.nothing, p.Nothing = err, err.Error() }

func (l *Looker) guard(ctx context.Context) func(*Picture) {
	self, all, err := guard.Ask(ctx, l.StateDir)
	g := &Guard{PID: self.PID, Build: self.Build, Relays: len(all), Unrecorded: self.Unrecorded, byRelay: make(map[string]bool)}
	if err != nil {
		g.Error = err.Error()
	}
	for _, r := range all {
		g.byRelay[r.ID] = r.Guarded
		g.Resumed += r.Resumed
		if r.Guarded {
			g.Guarded++
		}
	}
	return func(p *Picture) { p.Guard = g }
}

func (l *Looker) collect(context.Context) func(*Picture) {
	life := keeper.Ask(export.CollectLock(config.Config{Relay: config.Relay{StateDir: l.StateDir}}))
	state := map[keeper.Life]string{keeper.Absent: "absent", keeper.Answers: "answers", keeper.Silent: "silent"}[life]
	return func(p *Picture) { p.Collect = &Collect{State: state} }
}

// look looks at a journal.
func look(cfg config.Config, s *journal.Surveyor) Journal {
	j := Journal{Dir: cfg.Journal.Dir, Max: int64(cfg.Journal.MaxBytes)}
	dir, to := j.Dir, cfg.Export.All()
	targets, cerrs := make([]journal.Target, len(to)), make([]error, len(to))
	for i, t := range to {
		targets[i].Name = t.Name
		targets[i].Cursor, cerrs[i] = journal.ReadCursor(dir, t.Name)
	}
	now, err := s.Survey(targets...)
	if err != nil {
		j.Error = err.Error()
		return j
	}
	j.Bytes, j.Segments, j.Damaged, j.Spans, j.Posted, j.Lost = now.Bytes, now.Segments, now.CorruptBytes, now.Spans, now.Posted, now.Lost
	for source, bytes := range now.Shares {
		j.Shares = append(j.Shares, Share{Bytes: bytes, source: source})
	}
	slices.SortFunc(j.Shares, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.source, b.source))
	})
	for i, t := range to {
		j.Targets = append(j.Targets, target(dir, t, now.Waiting[i], cerrs[i]))
	}
	return j
}

// target looks at what was shipped of a journal. err is why it is not known how far.
func target(dir string, to config.Target, w journal.Waiting, err error) Target {
	t := Target{Name: to.Name, Endpoint: shown(to.Endpoint), Protocol: to.Protocol, Waiting: w.Spans, Aside: w.Aside}
	totals, terr := ship.ReadTotals(ship.TotalsPath(dir, t.Name))
	t.Since, t.Shipped, t.Rejected, t.KeptOut, t.Error = totals.Since, totals.Shipped, totals.Rejected, totals.KeptOut, totals.Error
	if err := cmp.Or(terr, err); err != nil && t.Error == "" {
		t.Error = err.Error()
	}
	return t
}

// shown returns an endpoint without what may be secret in it: user, password and query.
func shown(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "?"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// join puts together what several of those asked have said.
func (p *Picture) join(configs []config.Config) {
	names := map[journal.Source]string{}
	for i := range p.Relays {
		r := &p.Relays[i]
		names[journal.SourceOf(r.Sandbox)] = cmp.Or(r.Name, r.Sandbox)
		if p.Guard != nil && p.Guard.Error == "" {
			guarded := p.Guard.byRelay[r.Socket]
			r.Guarded = &guarded
		}
	}
	order := func(dir string) int {
		return slices.IndexFunc(configs, func(c config.Config) bool { return c.Journal.Dir == dir })
	}
	slices.SortFunc(p.Journals, func(a, b Journal) int { return cmp.Compare(order(a.Dir), order(b.Dir)) })
	for _, j := range p.Journals {
		for i := range j.Shares {
			j.Shares[i].Of = names[j.Shares[i].source]
		}
	}
}

// Err returns what makes the command fail: that there are no relays, or that a relay does not
// answer.
func (p *Picture) Err() error {
	if p.nothing != nil {
		return p.nothing
	}
	for _, r := range p.Relays {
		if r.Error != "" {
			return fmt.Errorf("%s: %s", cmp.Or(r.Name, r.Sandbox), r.Error)
		}
	}
	return nil
}
