package route

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/shimtrace/shimtrace/internal/losses"
	"github.com/shimtrace/shimtrace/internal/sleep"
)

// relay is a relay as the Router sees it. The Router's lock guards its fields except
// conn.
type relay struct {
	router *Router
	conn   *net.UnixConn

	sandbox   string // empty: it has not sent a claim
	processes []process
	traces    []traceID // known to be its sandbox's

	queue   []parcel
	bytes   int // in the queue and being written
	waiting int // spans in the queue and being written
	news    chan struct{}
	over    bool // write what is queued, then end
}

// parcel is what one write sends.
type parcel struct {
	messages []byte
	spans    int
}

func newRelay(r *Router, conn *net.UnixConn) *relay {
	return &relay{router: r, conn: conn, news: make(chan struct{}, 1)}
}

// read reads the relay's messages until it ends.
func (c *relay) read() {
	defer func() {
		c.router.dismiss(c)
		c.router.mu.Lock()
		c.hangUp()
		c.router.mu.Unlock()
	}()
	messages := receiver{from: bufio.NewReaderSize(c.conn, 4<<10), most: maxClaim}
	for {
		kind, payload, err := messages.next()
		if err != nil {
			return
		}
		switch kind {
		case kindClaim:
			var said claim
			if err := json.Unmarshal(payload, &said); err != nil || said.Sandbox == "" {
				c.router.warn(fmt.Errorf("a relay's claim: %w", errProtocol))
				return
			}
			c.router.list(c, said)
		case kindEnd:
			c.router.work.Go(func() { c.router.settle(c) })
		}
	}
}

// enqueue queues a parcel and reports whether there was room. The caller holds the lock.
func (c *relay) enqueue(p parcel) bool {
	if c.bytes+len(p.messages) > c.router.opts.QueuedBytes && c.bytes > 0 {
		return false
	}
	c.queue = append(c.queue, p)
	c.bytes += len(p.messages)
	c.waiting += p.spans
	c.wake()
	return true
}

func (c *relay) wake() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// hangUp ends the link once the queue has been sent. The caller holds the lock.
func (c *relay) hangUp() {
	c.over = true
	c.wake()
}

// write sends what is queued. A relay that does not read fills its own queue and holds
// up nobody else.
func (c *relay) write() {
	defer c.conn.Close()
	r := c.router
	for range c.news {
		for {
			r.mu.Lock()
			queue, over := c.queue, c.over
			c.queue = nil
			r.mu.Unlock()
			if len(queue) == 0 {
				if over {
					return
				}
				break
			}
			if !c.send(queue) {
				c.abandon()
				return
			}
		}
	}
}

// send sends parcels. If the relay is gone it counts the rest as lost and returns false.
func (c *relay) send(queue []parcel) bool {
	for i, p := range queue {
		if _, err := c.conn.Write(p.messages); err != nil {
			c.lost(queue[i:])
			return false
		}
		c.router.mu.Lock()
		c.bytes -= len(p.messages)
		c.waiting -= p.spans
		c.router.mu.Unlock()
		c.router.counts.send(p.spans)
	}
	return true
}

// abandon closes the link and counts its queue as lost.
func (c *relay) abandon() {
	c.conn.Close()
	c.router.dismiss(c)
	c.router.mu.Lock()
	rest := c.queue
	c.queue = nil
	c.router.mu.Unlock()
	c.lost(rest)
}

func (c *relay) lost(queue []parcel) {
	c.router.mu.Lock()
	reason := losses.RelayGone
	if c.router.closed {
		reason = losses.Shutdown
	}
	spans := 0
	for _, p := range queue {
		c.bytes -= len(p.messages)
		c.waiting -= p.spans
		spans += p.spans
	}
	c.router.mu.Unlock()
	c.router.lose(reason, spans)
}

const (
	// settleTime bounds how long the answer to a leaving relay takes: its runtime has
	// ended, and its connections soon will.
	settleTime = 2 * time.Second
	// settlePause is the pause between looks at them. settleGrace is the time for a
	// connection that was made to be accepted.
	settlePause = 5 * time.Millisecond
	settleGrace = 50 * time.Millisecond
)

// settle tells a leaving relay when it has got all its spans.
func (r *Router) settle(c *relay) {
	ctx, cancel := context.WithTimeout(context.Background(), settleTime)
	defer cancel()
	for pause := settleGrace; ctx.Err() == nil; pause = settlePause {
		sleep.For(ctx, pause)
		if !r.talks(c) {
			break
		}
	}
	r.opts.Settle(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.relays[c] {
		c.bytes += headSize // may exceed QueuedBytes
		c.queue = append(c.queue, parcel{messages: appendMessage(nil, kindEnd, nil)})
		c.wake()
		r.retire(c)
	}
}

// talks reports whether the relay's runtime has open connections.
func (r *Router) talks(c *relay) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		if p.owner == c {
			return true
		}
	}
	return false
}
