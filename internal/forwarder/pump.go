package forwarder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// connection is one agent's, being read.
type connection struct {
	listen.Conn
	sandbox *sandbox
	info    ConnInfo
	end     error // how it ended, once it has; nil between two frames

	// Of the last read, and of what is done with what it brought:
	now   time.Time
	meter meter
	over  bool // the sandbox has no processor time left
	spare *span.Span
	short int // bytes that frames count for beyond their length
}

// pump reads the connection to its end and queues what comes of it.
func (c *connection) pump() {
	defer c.sandbox.forwarder.leave(c)
	c.end = c.read()
	c.Close()
	c.sandbox.putEnd(c)
}

// read reads the connection to its end, which is nil between two frames.
func (c *connection) read() (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.sandbox.count.lose(losses.Panic)
			err = fmt.Errorf("read agent spans: panic: %v", v)
		}
	}()
	reader := c.reader()
	decoder := agent.NewDecoder(c.sandbox.wire)
	for {
		payload, err := reader.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, handover.ErrStopped):
			return fmt.Errorf("%w: %w", errClosed, err)
		case err != nil:
			return err
		}
		if c.charge(len(payload)) {
			decoder = c.decode(decoder, payload)
		}
	}
}

// decode decodes a payload and queues its span. It returns the decoder to go on
// with: another one after a panic.
func (c *connection) decode(d *agent.Decoder, payload []byte) (next *agent.Decoder) {
	s := c.sandbox
	defer func() {
		if recover() != nil {
			s.count.lose(losses.Panic)
			next = agent.NewDecoder(s.wire)
		}
	}()
	if c.spare == nil {
		c.spare = new(span.Span)
	}
	span := c.spare
	if d.Decode(payload, span) != nil { // which counts what fails
		return d
	}
	// What a byte becomes in memory is the guest's choice.
	if more := span.Cost() - len(payload); more > 0 && !s.bytes.AllowN(c.now, more) {
		s.count.lose(losses.ByteRate)
		return d
	}
	c.spare = nil
	s.put(c, span)
	return d
}

const (
	// maxRead is how many bytes are read at once, at most.
	maxRead = 64 << 10
	// minFrame is what a frame counts for, at least, in bytes that are read: it
	// costs time however short it is.
	minFrame = 512
	// minRead is the same for a read.
	minRead = 4 << 10
)

// charge says whether the sandbox may have another payload decoded.
func (c *connection) charge(size int) bool {
	s := c.sandbox
	if size < minFrame {
		c.short += minFrame - size
	}
	switch {
	case c.over:
		s.count.lose(losses.CPU)
	case !s.spans.AllowN(c.now, 1):
		s.count.lose(losses.SpanRate)
	case !s.bytes.AllowN(c.now, size):
		s.count.lose(losses.ByteRate)
	default:
		return true
	}
	return false
}

// reader returns the frame reader, which another process can go on with if it can with
// the connection.
func (c *connection) reader() *agent.Reader {
	if kept, ok := c.Conn.(*handover.Incoming); ok {
		kept.Stream().Around(c.before, c.after)
		return agent.NewStreamReader(kept.Stream(), c.sandbox.wire)
	}
	return agent.NewReader(c, c.sandbox.wire)
}

// Read implements io.Reader for the frame reader.
func (c *connection) Read(b []byte) (int, error) {
	if err := c.before(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(b[:min(len(b), maxRead)])
	c.after(n)
	return n, err
}

// before charges for what the last read brought, and lets reads go on to the end that Close
// sets.
func (c *connection) before() error {
	c.settle()
	select {
	case <-c.sandbox.forwarder.closing:
		return c.closingDeadline()
	default:
		return nil
	}
}

// after keeps to the pace that the sandbox is read at.
func (c *connection) after(n int) {
	c.sandbox.count.bytes.Add(uint64(n))
	c.now = time.Now()
	if n > 0 {
		c.pace(max(n, minRead))
	}
	c.over = c.sandbox.cpu.overdrawn(c.now)
	c.meter.start(c.now)
}

// settle charges what was done with what the last read brought.
func (c *connection) settle() {
	now := time.Now()
	c.sandbox.cpu.spend(c.meter.stop(now), now)
	if c.short > 0 {
		c.now = now
		c.pace(c.short)
		c.short = 0
	}
}

// closingDeadline lets a read go on only while there is something to read, and
// time to.
func (c *connection) closingDeadline() error {
	select {
	case <-c.sandbox.forwarder.abandon:
		return os.ErrDeadlineExceeded
	default:
		return c.SetReadDeadline(time.Now().Add(quiet))
	}
}

// pace waits as long as the sandbox is ahead of the pace it is read at.
func (c *connection) pace(n int) {
	var wait time.Duration
	for ; n > 0; n -= maxRead { // which is the least that the limiter grants at once
		wait = c.sandbox.reads.ReserveN(c.now, min(n, maxRead)).DelayFrom(c.now)
	}
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.sandbox.forwarder.abandon:
	}
	c.now = time.Now()
}
