package middleware

import (
	"errors"
	"sync"
)

// Leave has every connection stop where it is, for another process to go on with, and
// returns when they have: nothing of them has been closed, shut down or told of as ended,
// and Connect and Resume have returned. A connection that comes afterwards is not read.
// It fails, and nothing has changed, if there is a connection that cannot be handed over.
func (r *Relay) Leave() error { return r.conns.leave() }

// conns are the connections of a relay.
type conns struct {
	mu   sync.Mutex
	open map[*conn]struct{}
	left bool
	gone sync.Cond
}

// add adds a connection, whose streams are stopped if they are not to be read any more.
func (cs *conns) add(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.open == nil {
		cs.open = make(map[*conn]struct{})
		cs.gone.L = &cs.mu
	}
	cs.open[c] = struct{}{}
	if cs.left {
		c.stop()
	}
}

func (cs *conns) remove(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
	cs.gone.Broadcast()
}

func (cs *conns) leave() error {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		if c.memory == nil {
			return errors.New("relay: there is a connection that ends with this process")
		}
	}
	cs.left = true
	for c := range cs.open {
		c.stop()
	}
	for len(cs.open) > 0 {
		cs.gone.Wait()
	}
	return nil
}

func (c *conn) stop() {
	for _, s := range c.streams {
		s.Stop()
	}
}
