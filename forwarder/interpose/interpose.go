// Package interpose takes the place of a VMM's hybrid VSOCK socket, so that what a
// runtime says to the agent in the VM can be relayed.
//
// Work in progress: the interface is as it will be.
package interpose

import (
	"context"
	"net"
	"time"

	"github.com/shimtrace/shimtrace/forwarder/listen"
)

// Options say where, and what to do with connections. The zero value means the
// defaults named at each field, but for Relay, which must be given.
type Options struct {
	// Patterns are where VMMs have their sockets; listen.DefaultPatterns.
	Patterns []listen.Pattern
	// Port is the agent's port for requests; 1024.
	Port uint32
	// Relay relays a connection to the agent whose handshake is over, and returns
	// when both have ended, which it closes (middleware.Relay.Connect).
	Relay func(client, server net.Conn)
	// Watch is for how long directories are watched by inotify. Default 2 minutes.
	Watch time.Duration
	// Warn is told what goes wrong; nothing ends by it.
	Warn func(error)
}

// Interposer is in the place of the socket of one sandbox's VMM.
type Interposer struct{ opts Options }

// Counts are of connections that have ended their handshake.
type Counts struct {
	// Relayed went to Options.Relay, Passed elsewhere, and Attempts were for the
	// agent when it did not listen.
	Relayed, Passed, Attempts uint64
}

// New returns an interposer, which Serve runs. It fails for a sandbox id or a
// pattern that makes no path.
func New(sandbox string, o Options) (*Interposer, error) { return &Interposer{opts: o}, nil }

// Serve takes the socket's place as soon as there is one, until ctx is done. Then
// it gives the place back, and returns; connections go on until Close.
func (i *Interposer) Serve(ctx context.Context) { <-ctx.Done() }

// Close, after Serve has returned, waits for the connections to end by themselves,
// and cuts them when ctx is done.
func (i *Interposer) Close(ctx context.Context) error { return nil }

// Counts returns the numbers so far.
func (i *Interposer) Counts() Counts { return Counts{} }

// Restore gives sockets back whose places were taken by a process that died.
func Restore(sandbox string, patterns []listen.Pattern) error { return nil }
