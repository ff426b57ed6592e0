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

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// defaultPort is where the agent listens for requests.
const defaultPort = kata.AgentPort

// Options say where, and what to do with connections. The zero value means the
// defaults named at each field, but for Relay, which must be given.
type Options struct {
	// Patterns are where VMMs have their sockets; listen.DefaultPatterns.
	Patterns []listen.Pattern
	// Port is the agent's port for requests; DefaultPort.
	Port uint32
	// Relay relays a connection to the agent whose handshake is over but for the VMM's
	// answer, which is the first that is read of the server and passes as it is
	// (handover.Ahead). It returns when both have ended, which it closes
	// (middleware.Relay.Connect). The connections can be closed for reading and for
	// writing by themselves.
	Relay func(client, server net.Conn)
	// MaxConnections bounds the connections at a time; what is beyond waits to be
	// accepted. VMMs have a bound of their own. Default 1024.
	MaxConnections int
	// Owns reports whether a user's VMM is the sandbox's, for patterns with {user}.
	// Default: nobody's is.
	Owns func(uid uint32) bool
	// Pace says how often to look for the socket. Default: the VMM is expected within
	// 2 minutes; one that comes later is found later.
	Pace *vmmdir.Pace
	// Taken is told when a place has been taken, before who comes there is served, and
	// Left when nobody is any more. Default: nobody is told.
	Taken func(Seat)
	Left  func(path string)
	// Seats are places that another process has taken; what is not the sandbox's is
	// closed.
	Seats []Seat
	// Warn is told what goes wrong; nothing ends by it.
	Warn func(error)

	step func(name string) // tests wait there
}

// Interposer is in the place of the socket of one sandbox's VMM.
type Interposer struct {
	opts   Options
	places []*place
	taken  time.Duration // between looks when the place is ours
	look   chan struct{} // something may have changed
	room   chan struct{} // has an element for each connection
	seats  sync.WaitGroup
	conns  *connections

	relayed, passed, attempts atomic.Uint64
}

// Counts are numbers of connections.
type Counts struct {
	// Relayed went to Options.Relay, Passed to another port, and Attempts were for
	// the agent when it did not listen. Passed and Attempts have ended.
	Relayed, Passed, Attempts uint64
}

// New returns an interposer, which Serve runs. It fails for a sandbox id or a
// pattern that makes no path.
func New(sandbox string, o Options) (*Interposer, error) {
	if o.Relay == nil {
		return nil, errors.New("interpose: there is no relay for connections")
	}
	if o.Patterns == nil {
		o.Patterns = listen.DefaultPatterns()
	}
	if o.Port == 0 {
		o.Port = defaultPort
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 1024
	}
	if o.Pace == nil {
		o.Pace = vmmdir.NewPace(again)
	}
	if o.Taken == nil {
		o.Taken = func(Seat) {}
	}
	if o.Left == nil {
		o.Left = func(string) {}
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	i := &Interposer{
		opts:  o,
		taken: 10 * time.Second, // the end of a connection has us look, too
		look:  make(chan struct{}, 1),
		room:  make(chan struct{}, o.MaxConnections),

		conns: newConnections(),
	}
	for _, p := range o.Patterns {
		path, err := p.Socket(sandbox)
		if err != nil {
			return nil, err
		}
		i.places = append(i.places, &place{Interposer: i, path: path, spot: listen.NewSpot(path), report: vmmdir.Reporter{To: o.Warn}})
	}
	return i, nil
}

// Serve takes the place of the VMM's socket as soon as there is one, and again
// when the VMM makes another, until ctx is done. Then the VMM has its name back,
// at once if it lives; who had connected to us by then is served. Serve returns a
// tenth of a second later, and leaves the connections there are to Close.
func (i *Interposer) Serve(ctx context.Context) {
	for _, s := range i.opts.Seats {
		if !i.resume(s) {
			s.Listener.Close()
			s.Hold.Close()
			i.opts.Left(s.Path)
		}
	}
	defer i.seats.Wait()
	defer func() {
		for _, p := range i.places {
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
	// least is the shortest time between two looks for the VMM's socket. The runtime
	// connects as soon as that is there, in vain until the VM has booted.
	least = time.Millisecond
	// again is for how long a VMM is expected that is not expected otherwise.
	again = 2 * time.Minute
)

// tend takes places wherever that has become possible. It returns how many of the
// directories are there, and whether a place is taken: a sandbox has one VMM.
func (i *Interposer) tend() (there int, taken bool) {
	for _, p := range i.places {
		if i.guard(p.path, p.tend) {
			taken = true
		}
		if p.there {
			there++
		}
	}
	return there, taken
}

// guard has a panic cost what it is about, and not the process, on which a sandbox
// depends.
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

// nudge has the places looked at.
func (i *Interposer) nudge() {
	select {
	case i.look <- struct{}{}:
	default:
	}
}

// Close waits for the connections to end by themselves, and cuts them when ctx is
// done, whose error it then returns. It is called after Serve has returned.
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
