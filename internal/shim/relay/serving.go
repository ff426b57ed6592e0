package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/shim/kata"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/middleware"
)

// serving is the relaying of the shim's calls, which one relay after another does: each
// hands over to the next where it stops.
type serving struct {
	mu    sync.Mutex
	relay *middleware.Relay
	over  chan struct{} // closed when the last connection has ended after the listener was closed
}

// wait waits until all is over.
func (s *serving) wait(limit time.Duration) {
	end := time.After(limit)
	for {
		s.mu.Lock()
		over := s.over
		s.mu.Unlock()
		select {
		case <-over:
		case <-end:
			return
		}
		s.mu.Lock()
		last := s.over == over
		s.mu.Unlock()
		if last {
			return
		}
	}
}

// accept relays what comes to the listener, in the background, and connections that were
// accepted before.
func (p *Process) accept(relay *middleware.Relay, resumed ...connection) {
	p.serving.mu.Lock()
	defer p.serving.mu.Unlock()
	p.serve(relay, resumed)
}

// serve is accept for a caller that holds the lock.
func (p *Process) serve(relay *middleware.Relay, resumed []connection) {
	over := make(chan struct{})
	p.serving.relay, p.serving.over = relay, over
	var running sync.WaitGroup
	for _, c := range resumed {
		running.Go(func() { p.resume(relay, c) })
	}
	go func() {
		defer close(over)
		if p.listener != nil {
			_ = host.AcceptAll(context.Background(), p.listener.Accept, func(client net.Conn) {
				p.guarded.accepted(client)
				running.Go(func() { p.connect(relay, client) })
			}, func(err error) { p.Log.Warn("relay accept", "error", err) })
		}
		running.Wait()
	}()
}

// connect relays a new connection to its end, or until another process is to go on with it:
// then it stays open.
func (p *Process) connect(relay *middleware.Relay, client net.Conn) {
	server, err := state.Dial(p.state.InnerSock)
	if err != nil {
		p.Log.Warn("relay dial", "error", err)
		p.guarded.ended(client)
		client.Close()
		return
	}
	relay.Connect(client, server)
	p.guarded.ended(client)
}

// resume goes on with a connection until it ends.
func (p *Process) resume(relay *middleware.Relay, c connection) {
	if c.memory == nil {
		p.connect(relay, c.client)
		return
	}
	if err := relay.Resume(c.client, c.server, c.memory); err != nil {
		p.Log.Error("a connection ends with the relay that was there before", "error", err)
		p.guarded.Remove(c.name)
		c.client.Close()
		c.server.Close()
	}
}

// handOver stops the relaying where another process can go on, which needs nothing more
// from this one, and returns how to go on here after all (guard.ClientOptions).
func (p *Process) handOver(ctx context.Context) (goOn func(), err error) {
	s := &p.serving
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relay == nil { // it has registered, and may wait for a disk before it goes on for another one
		return nil, errors.New("hand over: it does not relay yet")
	}
	p.flush(ctx) // most of it, while calls go on
	kataGoesOn := func([]func(*middleware.Relay)) {}
	if p.kata != nil {
		if kataGoesOn, err = p.kata.Leave(); err != nil {
			return nil, fmt.Errorf("hand over: %w", err)
		}
	}
	if err := s.relay.Leave(); err != nil {
		kataGoesOn(p.resumers(p.guarded.handedOver(kata.EntryRequest)))
		return nil, fmt.Errorf("hand over: %w", err)
	}
	if p.listener != nil {
		p.listener.pause(true)
	}
	rest, cancel := context.WithTimeout(ctx, restTime)
	defer cancel()
	p.flush(rest)
	if p.sandbox != nil {
		p.sandbox.saver.now()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.listener != nil {
			p.listener.pause(false)
		}
		relay := p.bytes()
		if !p.untraced {
			relay = p.relay()
		}
		p.serve(relay, p.guarded.handedOver(entryConn))
		kataGoesOn(p.resumers(p.guarded.handedOver(kata.EntryRequest)))
	}, nil
}

// restTime bounds how long spans are written while nothing is relayed. What is not written
// then is counted as lost by the process that goes on.
const restTime = 5 * time.Millisecond

// flush writes the spans that have ended, as far as there is time.
func (p *Process) flush(ctx context.Context) {
	if p.untraced {
		return
	}
	if err := p.tel.Flush(ctx); err != nil {
		p.Log.Debug("spans wait for the journal while this relay hands over", "error", err)
	}
}

// bytes returns a relay that knows of nothing but bytes.
func (p *Process) bytes() *middleware.Relay {
	return middleware.NewRelay(middleware.WithSwitch(new(middleware.Switch)), p.guarded.Handover(entryConn))
}
