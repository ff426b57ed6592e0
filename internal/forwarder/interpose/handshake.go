package interpose

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/host"
)

// verdict says what happens to a connection.
type verdict int32

const (
	open   verdict = iota
	passes         // it passes untouched
	relays         // its handshake is over, and what follows is relayed
)

// connection is a client's connection that goes on to the VMM. Each direction has a
// goroutine that passes bytes on and inspects them until the verdict is clear. The
// connection is relayed once the VMM has agreed to the client's first line. What
// follows is then held for the relay, and so is the VMM's answer: the client must not
// be told to go on before the relay can.
type connection struct {
	client, server *net.UnixConn
	fromClient     []byte // what came after the line
	fromServer     []byte // the answer, which the relay passes on, and what came after it
	line           int    // the answer's length
	step           func(string)
	panicked       func(any)

	mu      sync.Mutex
	verdict verdict
	asked   bool          // the client was first, and asked for the agent's port
	decided chan struct{} // closed once there is a verdict
}

// maxHeld bounds in bytes what is held of a client before the VMM has answered; the
// rest waits in its socket.
const maxHeld = 64 << 10

// handshake serves the connection until it ends or is to be relayed.
func (c *connection) handshake(port uint32) (verdict, error) {
	c.decided = make(chan struct{})
	fromClient, err := newReader(c.client)
	if err != nil {
		return passes, err
	}
	fromServer, err := newReader(c.server)
	if err != nil {
		return passes, err
	}
	var answers sync.WaitGroup
	answers.Go(func() {
		defer c.broken()
		c.answers(fromServer)
	})
	c.requests(fromClient, port)
	answers.Wait()
	_ = c.client.SetReadDeadline(time.Time{})
	return c.current(), nil
}

// broken is deferred: it makes a panic in one direction end the other one, too.
func (c *connection) broken() {
	if v := recover(); v != nil {
		c.panicked(v)
		c.decide(passes)
		c.client.Close()
		c.server.Close()
	}
}

// decide sets the verdict unless there is one, and returns the verdict.
func (c *connection) decide(v verdict) verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle(v)
	return c.verdict
}

// settle is decide for a caller that holds the lock.
func (c *connection) settle(v verdict) {
	if c.verdict == open && v != open {
		c.verdict = v
		close(c.decided)
	}
}

// ask notes that the client asks for the agent's port, unless there is a verdict, and
// reports whether it did.
func (c *connection) ask() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = c.verdict == open
	return c.asked
}

// wasAsked reports whether what the VMM says may be an answer. If the client has not
// asked before, the connection passes.
func (c *connection) wasAsked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked {
		c.settle(passes)
	}
	return c.asked
}

func (c *connection) current() verdict { return c.decide(open) }

// rouse makes the other direction, which may be waiting for the client, see the verdict.
func (c *connection) rouse() { _ = c.client.SetReadDeadline(time.Unix(1, 0)) }

// roused reports whether err comes from rouse.
func (c *connection) roused(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	_ = c.client.SetReadDeadline(time.Time{})
	return true
}

// requests passes on the client's bytes.
func (c *connection) requests(from *reader, port uint32) {
	defer from.release()
	first := request(port)
	for c.current() == open {
		data, passed, err := from.next()
		if c.roused(err) {
			break
		}
		if err != nil {
			c.decide(passes)
			ended(err, c.client, c.server)
			return
		}
		n, m := first.feed(data)
		if len(passed) > 0 {
			m = other // requests to an agent carry no descriptors
		}
		if m == awaited && !c.ask() { // before the VMM can answer
			m = other // it has spoken already
		}
		if m == awaited {
			c.fromClient = append([]byte(nil), data[n:]...)
			data = data[:n]
		}
		if m == other {
			c.decide(passes)
		}
		if err := write(c.server, data, passed); err != nil {
			c.decide(passes)
			unheard(err, c.client, c.server)
			return
		}
		if m == awaited {
			c.hold(from)
			return
		}
	}
	c.pass(from, c.client, c.server)
}

// hold waits for the VMM's answer and keeps the client's bytes meanwhile. A client that
// ends before the answer, or passes descriptors, is not the agent's.
func (c *connection) hold(from *reader) {
	var data []byte
	var passed []int
	var err error
	for c.current() == open {
		if len(c.fromClient) >= maxHeld {
			<-c.decided
			break
		}
		data, passed, err = from.next()
		if c.roused(err) {
			err = nil
			break
		}
		if err != nil || len(passed) > 0 {
			c.decide(passes)
			break
		}
		c.fromClient = append(c.fromClient, data...)
	}
	if c.current() == relays {
		// Too late for descriptors. If the client has ended, the relay reads that again.
		if len(passed) > 0 {
			c.fromClient = append(c.fromClient, data...)
			host.CloseAll(passed)
		}
		c.fromClient = append(c.fromClient, from.later.data...)
		return
	}
	werr := write(c.server, c.fromClient, nil)
	if len(passed) > 0 {
		if werr == nil {
			werr = write(c.server, data, passed)
		} else {
			host.CloseAll(passed)
		}
	}
	switch {
	case werr != nil:
		unheard(werr, c.client, c.server)
	case err != nil:
		ended(err, c.client, c.server)
	default:
		c.pass(from, c.client, c.server)
	}
}

// answers passes on the VMM's bytes.
func (c *connection) answers(from *reader) {
	defer from.release()
	c.step("answers")
	first := consent()
	for c.current() == open {
		data, passed, err := from.next()
		if err != nil {
			c.decide(passes)
			c.rouse()
			ended(err, c.server, c.client)
			return
		}
		n, m := len(data), other
		if c.wasAsked() && len(passed) == 0 {
			n, m = first.feed(data)
		}
		switch m {
		case awaited:
			c.fromServer, c.line = append([]byte(nil), data...), n
			if c.decide(relays) == relays {
				c.rouse()
				return
			}
		case other:
			c.decide(passes)
			c.rouse()
		}
		if err := write(c.client, data, passed); err != nil {
			c.decide(passes)
			c.rouse()
			unheard(err, c.server, c.client)
			return
		}
	}
	c.pass(from, c.server, c.client)
}
