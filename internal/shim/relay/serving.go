package relay

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

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

// serve is accept for who holds the lock.
func (p *Process) serve(relay *middleware.Relay, resumed []connection) {
	dial := func(context.Context) (net.Conn, error) { return state.Dial(p.state.InnerSock) }
	over := make(chan struct{})
	p.serving.relay, p.serving.over = relay, over
	var running sync.WaitGroup
	for _, c := range resumed {
		running.Go(func() {
			if err := relay.Resume(c.client, c.server, c.memory); err != nil {
				p.Log.Error("a connection ends with the relay that was there before", "error", err)
				c.client.Close()
				c.server.Close()
				p.guarded.remove(c.name)
			}
		})
	}
	go func() {
		defer close(over)
		if p.listener != nil {
			_ = relay.Serve(context.Background(), p.listener, dial)
		}
		running.Wait()
	}()
}

// handOver stops the relaying where another process can go on, which needs nothing more
// from this one, and returns how to go on here after all (guard.ClientOptions).
func (p *Process) handOver(ctx context.Context) (goOn func(), err error) {
	s := &p.serving
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.relay.Leave(); err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	if p.listener != nil {
		p.listener.pause(true)
	}
	if !p.untraced {
		if err := p.tel.Flush(ctx); err != nil {
			p.Log.Warn("spans are lost with the relay that hands over", "error", err)
		}
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
	}, nil
}

// bytes returns a relay that knows of nothing but bytes.
func (p *Process) bytes() *middleware.Relay {
	return middleware.NewRelay(middleware.WithSwitch(new(middleware.Switch)), p.guarded.handover(entryConn))
}
