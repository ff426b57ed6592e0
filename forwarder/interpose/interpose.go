package interpose

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shimtrace/shimtrace/forwarder/listen"
	"github.com/shimtrace/shimtrace/forwarder/vmmdir"
)

// DefaultPort is where the agent listens for requests (kata-containers,
// src/agent/src/config.rs).
const DefaultPort = 1024

// Options say where, and what to do with connections. The zero value means the
// defaults named at each field, but for Relay, which must be given.
type Options struct {
	// Patterns are where VMMs have their sockets; listen.DefaultPatterns.
	Patterns []listen.Pattern
	// Port is the agent's port for requests; DefaultPort.
	Port uint32
	// Relay relays a connection to the agent whose handshake is over, and returns
	// when both have ended, which it closes (middleware.Relay.Connect). The
	// connections can be closed for reading and for writing by themselves.
	Relay func(client, server net.Conn)
	// MaxConnections bounds the connections at a time; what is beyond waits to be
	// accepted. VMMs have a bound of their own. Default 1024.
	MaxConnections int
	// Watch is for how long directories are watched by inotify, which the kernel
	// rations by user (128 watchers by default), or else looked for often. After
	// that, and once a socket's place is taken, one looks for them. Default
	// 2 minutes.
	Watch time.Duration
	// Warn is told what goes wrong; nothing ends by it.
	Warn func(error)

	step       func(name string) // tests wait there
	noExchange bool              // tests are on file systems that can
}

// Interposer is in the place of the socket of one sandbox's VMM.
type Interposer struct {
	opts   Options
	places []*place
	pace   pace
	look   chan struct{} // something may have changed
	room   chan struct{} // has an element for each connection
	seats  sync.WaitGroup
	conns  *connections

	relayed, passed, attempts atomic.Uint64
}

// pace is how often directories are looked at.
type pace struct {
	taken   time.Duration // when the place is ours
	watched time.Duration // beside inotify
	blind   time.Duration // without inotify
	later   time.Duration // when the sandbox has had its time
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
		o.Port = DefaultPort
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 1024
	}
	if o.Watch <= 0 {
		o.Watch = 2 * time.Minute
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	i := &Interposer{
		opts: o,
		pace: pace{taken: 2 * time.Second, watched: 2 * time.Second, blind: 50 * time.Millisecond, later: 10 * time.Second},
		look: make(chan struct{}, 1),
		room: make(chan struct{}, o.MaxConnections),

		conns: newConnections(),
	}
	for _, p := range o.Patterns {
		path, err := p.Socket(sandbox)
		if err != nil {
			return nil, err
		}
		i.places = append(i.places, &place{Interposer: i, path: path, report: vmmdir.Reporter{To: o.Warn}})
	}
	return i, nil
}

// Serve takes the place of the VMM's socket as soon as there is one, and again
// when the VMM makes another, until ctx is done. Then the VMM has its name back,
// at once if it lives; who had connected to us by then is served. Serve returns a
// tenth of a second later, and leaves the connections there are to Close.
func (i *Interposer) Serve(ctx context.Context) {
	defer i.seats.Wait()
	defer func() {
		for _, p := range i.places {
			i.guard(p.path, func() bool { p.leave(); return true })
		}
	}()
	watch, interval := i.watch()
	defer func() { watch.Close() }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	over := time.NewTimer(i.opts.Watch)
	defer over.Stop()
	was := false
	for {
		for {
			watch.Settle()
			awaited, taken := i.tend()
			if taken {
				watch.Close()
				tick.Reset(i.pace.taken)
			} else if was { // the VMM may come back
				watch, interval = i.watch()
				tick.Reset(interval)
				over.Reset(i.opts.Watch)
			}
			was = taken
			if taken || !watch.Follow(awaited) {
				break
			}
		}
		events, lost := watch.Events()
		select {
		case <-ctx.Done():
			return
		case <-events:
		case <-lost:
		case <-tick.C:
		case <-i.look:
		case <-over.C:
			watch.Close()
			tick.Reset(i.pace.later)
		}
	}
}

// watch begins to watch directories, if it can, and returns how often to look at
// them beside.
func (i *Interposer) watch() (vmmdir.Watcher, time.Duration) {
	watch, err := vmmdir.NewWatcher()
	if err == nil {
		return watch, i.pace.watched
	}
	if i.opts.Warn != nil {
		i.opts.Warn(err)
	}
	return watch, i.pace.blind
}

// tend takes places wherever that has become possible. It returns the directories
// that are awaited, and whether a place is taken: a sandbox has one VMM.
func (i *Interposer) tend() (awaited []string, taken bool) {
	for _, p := range i.places {
		if i.guard(p.path, p.tend) {
			taken = true
		} else {
			awaited = append(awaited, filepath.Dir(p.path))
		}
	}
	return awaited, taken
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

// Close, after Serve has returned, waits for the connections to end by themselves,
// and cuts them when ctx is done, whose error it then returns.
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
