package relay

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/middleware"
)

// following is how a relay follows its configuration while it runs. The guard tells of
// changes of the files. They are read beside the calls: a file system that hangs holds up
// nothing else.
type following struct {
	current atomic.Pointer[effective] // what is in effect
	news    chan bool                 // true: a file has changed; false: one may have

	mu   sync.Mutex
	said control.Configuration
}

// maxProblem bounds what is said of a mistake, in bytes.
const maxProblem = 1 << 10

// errUnwatched is said as long as no guard has answered.
var errUnwatched = errors.New("no guard watches the files: there is none, or one of an older version (shimtrace upgrade replaces it)")

// begin begins with the configuration of the options.
func (f *following) begin(o Options) {
	f.news = make(chan bool, 1)
	f.current.Store(effectiveOf(o.Config))
	f.said = control.Configuration{Read: time.Now(), Unseen: errUnwatched.Error()}
	if o.Source != nil {
		f.said.Files = o.Source.Files()
	}
	f.mistaken(o.Report)
}

// now returns the configuration that is in effect.
func (f *following) now() config.Config { return f.current.Load().Config }

// goOnWith has a process that goes on for another one keep the configuration that the other
// one went by, as far as that has saved it, if there are mistakes in the files.
func (p *Process) goOnWith(was saved) {
	if p.Report.Err() == nil {
		return
	}
	if was.Settings != nil {
		p.Config = p.Config.With(was.Settings.Followed)
	} else {
		p.Config.Trace.Mode = modeOf(was.Sandbox.State)
	}
	p.current.Store(effectiveOf(p.Config))
}

// register has the guard know the relay, and the files that it follows.
func (p *Process) register() {
	if p.Source != nil {
		if err := p.guarded.WatchFiles(p.Source.Files()); err != nil {
			p.watched(err.Error())
		}
	}
	p.guarded.Register(p.client())
}

// watched is told whether the files are watched from now on: changes before that were not
// reported.
func (f *following) watched(why string) {
	f.mu.Lock()
	f.said.Unseen = why
	f.mu.Unlock()
	if why == "" {
		select {
		case f.news <- false:
		default:
		}
	}
}

// changed is told that a file has changed.
func (f *following) changed() {
	for {
		select {
		case f.news <- true:
			return
		case <-f.news: // one that says less
		}
	}
}

// follow has changes of the configuration in effect, until ctx is done.
func (p *Process) follow(ctx context.Context) {
	if p.Source == nil || p.untraced {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case told := <-p.news:
			p.reread(told)
		}
	}
}

// reread reads the configuration again, and has it in effect if there are no mistakes in it.
func (p *Process) reread(told bool) {
	defer func() {
		if v := recover(); v != nil {
			p.Log.Error("a change of the configuration has no effect, or only a part", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	cfg, report, changed := p.Source.Again(told)
	if !changed {
		return
	}
	if p.mistaken(report) {
		if err := report.Err(); err != nil {
			p.Log.Warn("the configuration is not taken: what it said before holds", "error", err)
		}
	}
	if report.Err() == nil {
		p.adopt(cfg)
	}
}

// mistaken notes what is wrong with the files, and reports whether that is new.
func (f *following) mistaken(r config.Report) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(r.Mistakes) == 0 {
		changed = f.said.Problem != nil
		f.said.Problem = nil
		return changed
	}
	text := r.Err().Error()
	if len(text) > maxProblem {
		text = text[:maxProblem] + "…"
	}
	if f.said.Problem != nil && f.said.Problem.Error == text {
		return false
	}
	now := control.Problem{Error: text, Since: time.Now()}
	if f.said.Problem != nil {
		now.Since = f.said.Problem.Since
	}
	now.Line, now.Column = config.Where(r.Mistakes[0])
	f.said.Problem = &now
	return true
}

// adopt has a configuration in effect for what begins from now on.
func (p *Process) adopt(cfg config.Config) {
	now, rest := p.Config.Live(cfg)
	p.current.Store(effectiveOf(now))
	p.following.mu.Lock()
	p.said.Read, p.said.NewPods = time.Now(), rest
	p.following.mu.Unlock()

	slow := time.Duration(now.Trace.Slow)
	p.tel.Provider.SetSampler(now.Trace)
	p.sandbox.own.Store(now.Trace.Join == "sandbox")
	if p.kata != nil {
		p.kata.Change(now)
	}
	p.usage.SetSlow(slow)
	if h := p.helpers.Load(); h != nil {
		h.SetSlow(slow)
	}
	if p.Level != nil {
		_ = p.Level.UnmarshalText([]byte(now.Log.Level)) // it was checked
	}
	p.serving.change(p.changeable())
	p.sandbox.switcher.follow(now.Trace)
	p.sandbox.saver.soon()
	p.Log.Debug("the configuration has changed", "for new pods only", rest)
}

// changeable are the options of a relay of the shim's calls that follow the configuration.
func (p *Process) changeable() []middleware.Option {
	cfg := p.now().Trace
	propagator, err := middleware.Propagator(cfg.Propagators...)
	if err != nil {
		p.Log.Warn("contexts are not propagated", "error", err)
	}
	return []middleware.Option{
		middleware.WithPropagator(propagator),
		middleware.WithQuiet(time.Duration(cfg.Slow), cfg.Quiet...),
	}
}

// change has the relay go by other options.
func (s *serving) change(opts []middleware.Option) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay != nil {
		s.relay.Change(opts...)
	}
}

// configuration is what the relay says of its configuration.
func (p *Process) configuration() *control.Configuration {
	p.following.mu.Lock()
	said := p.said
	p.following.mu.Unlock()
	said.Mode = p.sandbox.switcher.modeNow()
	return &said
}
