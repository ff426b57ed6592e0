package interpose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/internal/defaults"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/loglimit"
)

// Options say where to interpose and what to do with connections. The zero value means
// the defaults named at each field, except for Relay, which must be given.
type Options struct {
	// Patterns say where VMMs have their sockets. Default: listen.DefaultPatterns.
	Patterns []listen.Pattern
	// Port is the agent's port for requests. Default: kata.AgentPort.
	Port uint32
	// Relay relays a connection to the agent. Its handshake is complete except for the
	// VMM's answer, which is the first thing read from server and must pass unchanged
	// (handover.Ahead). Relay returns when both connections have ended, and closes them
	// (middleware.Relay.Connect). Each connection can be closed for reading and writing
	// separately.
	Relay func(client, server net.Conn)
	// MaxConnections bounds the open connections; more wait to be accepted. VMMs have
	// their own bound. Default 1024.
	MaxConnections int
	// Owns reports whether a user's VMM is the sandbox's, for patterns with {user}.
	// Default: nobody's is.
	Owns func(uid uint32) bool
	// Pace says how often to look for the socket. Default: often for 2 minutes, then
	// seldom.
	Pace *vmmdir.Pace
	// Taken is told when a place has been taken, before anyone who connects there is
	// served. Left is told when nobody is served there any more, which may be after the
	// same place was taken again. Default: nobody is told.
	Taken, Left func(Seat)
	// Seats are places that another process has taken. Those that are not the sandbox's
	// are closed.
	Seats []Seat
	// Warn is told of failures; none of them ends Serve.
	Warn func(error)

	step func(name string) // tests wait there
}

// Interposer takes the place of the socket of one sandbox's VMM.
type Interposer struct {
	opts  Options
	paths []*socketPath
	taken time.Duration // the pause between looks while a place is taken
	look  chan struct{} // signals that something may have changed
	room  chan struct{} // has an element for each connection
	seats sync.WaitGroup
	conns *connections

	relayed, passed, attempts atomic.Uint64
}

// Counts are numbers of connections.
type Counts struct {
	// Relayed went to Options.Relay, Passed to another port. Attempts were for the agent
	// while it did not listen. Passed and Attempts count connections that have ended.
	Relayed, Passed, Attempts uint64
}

// New returns an Interposer; Serve runs it. It fails for a sandbox id or a pattern that
// makes no path.
func New(sandbox string, o Options) (*Interposer, error) {
	if o.Relay == nil {
		return nil, errors.New("interpose: there is no relay for connections")
	}
	if o.Patterns == nil {
		o.Patterns = listen.DefaultPatterns()
	}
	if o.Port == 0 {
		o.Port = kata.AgentPort
	}
	defaults.Set(&o.MaxConnections, 1024)
	if o.Pace == nil {
		o.Pace = vmmdir.NewPace(again)
	}
	if o.Taken == nil {
		o.Taken = func(Seat) {}
	}
	if o.Left == nil {
		o.Left = func(Seat) {}
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	i := &Interposer{
		opts:  o,
		taken: 10 * time.Second, // the end of a connection triggers a look, too
		look:  make(chan struct{}, 1),
		room:  make(chan struct{}, o.MaxConnections),

		conns: newConnections(),
	}
	for _, p := range o.Patterns {
		path, err := p.Socket(sandbox)
		if err != nil {
			return nil, err
		}
		i.paths = append(i.paths, &socketPath{Interposer: i, path: path, spot: listen.NewSpot(path), report: loglimit.Reporter{To: o.Warn}})
	}
	return i, nil
}

// Serve takes the place of the VMM's socket as soon as it exists, and again when the
// VMM makes another, until ctx is done. Then it gives the VMM's socket its name back at
// once, if the VMM lives; clients that have connected by then are served. Serve
// returns a tenth of a second later and leaves open connections to Close.
func (i *Interposer) Serve(ctx context.Context) {
	for _, s := range i.opts.Seats {
		if !i.resume(s) {
			s.Listener.Close()
			s.Hold.Close()
			i.opts.Left(s)
		}
	}
	defer i.seats.Wait()
	defer func() {
		for _, p := range i.paths {
			i.guard(p.path, func() bool { p.leave(); return true })
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	dirs, was := 0, false
	for {
		wait, news := i.opts.Pace.Next(least)
		there, taken := i.tend()
		switch {
		case taken:
			wait = i.taken
		case was: // the VMM may come back
			i.opts.Pace.Expect(again)
		case there > dirs:
			i.opts.Pace.Quicken()
			wait = min(wait, least)
		}
		dirs, was = there, taken
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-i.look:
		case <-timer.C:
		}
	}
}

const (
	// least is the shortest pause between looks for the VMM's socket. The runtime tries
	// to connect as soon as the socket exists, and fails until the VM has booted.
	least = time.Millisecond
	// again is how long a VMM is expected when nobody says for how long.
	again = 2 * time.Minute
)

// tend takes every place that can be taken. It returns how many of the directories
// exist, and whether a place is taken: a sandbox has one VMM.
func (i *Interposer) tend() (there int, taken bool) {
	for _, p := range i.paths {
		if i.guard(p.path, p.tend) {
			taken = true
		}
		if p.there {
			there++
		}
	}
	return there, taken
}

// guard recovers a panic of f and reports it: a sandbox depends on this process.
func (i *Interposer) guard(path string, f func() bool) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			i.panicked(path, v)
		}
	}()
	return f()
}

func (i *Interposer) panicked(path string, v any) {
	if i.opts.Warn != nil {
		i.opts.Warn(fmt.Errorf("in the place of %s: panic: %v\n%s", path, v, debug.Stack()))
	}
}

// nudge triggers a look at the places.
func (i *Interposer) nudge() {
	select {
	case i.look <- struct{}{}:
	default:
	}
}

// Close waits for the connections to end. When ctx is done it cuts the rest and returns
// ctx's error. It is called after Serve has returned.
func (i *Interposer) Close(ctx context.Context) error {
	if err := i.conns.wait(ctx); err != nil {
		return errors.Join(errors.New("connections to the agent were cut"), err)
	}
	return nil
}

// Counts returns the numbers so far.
func (i *Interposer) Counts() Counts {
	return Counts{Relayed: i.relayed.Load(), Passed: i.passed.Load(), Attempts: i.attempts.Load()}
}
