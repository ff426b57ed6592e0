package forwarder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/handover"
	"github.com/shimtrace/shimtrace/internal/host"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// connection is one agent's connection.
type connection struct {
	listen.Conn
	sandbox *sandbox
	info    ConnInfo
	end     error // once it ended; nil: between two frames
	talks   bool  // it has sent spans; for sandbox.deliver

	reader  *agent.Reader
	decoder *agent.Decoder
	limits  *Limits // that these two keep to

	// Of the last read, and of the work on what it brought:
	now   time.Time
	meter meter
	over  bool // the sandbox's processor time is overdrawn
	spare *span.Span
	short int // bytes that short frames count for beyond their length
}

// pump reads the connection to its end and queues its spans.
func (c *connection) pump() {
	defer c.sandbox.forwarder.leave(c)
	c.end = c.read()
	c.Close()
	c.sandbox.putEnd(c)
}

// read reads the connection to its end. It returns nil if that is between two frames.
func (c *connection) read() (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.sandbox.count.lose(losses.Panic)
			err = fmt.Errorf("read agent spans: panic: %v", v)
		}
	}()
	c.limits = c.sandbox.limits.Load()
	c.reader, c.decoder = c.newReader(), agent.NewDecoder(c.limits.Wire)
	for {
		payload, err := c.reader.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, handover.ErrStopped):
			return fmt.Errorf("%w: %w", errClosed, err)
		case err != nil:
			return err
		}
		if c.charge(len(payload)) {
			c.decode(payload)
		}
	}
}

// decode decodes a payload and queues its span. After a panic the next one has a new decoder.
func (c *connection) decode(payload []byte) {
	s := c.sandbox
	defer func() {
		if recover() != nil {
			s.count.lose(losses.Panic)
			c.decoder = agent.NewDecoder(c.limits.Wire)
		}
	}()
	if c.spare == nil {
		c.spare, _ = s.spares.Get().(*span.Span)
	}
	if c.spare == nil {
		c.spare = new(span.Span)
	}
	span := c.spare
	if c.decoder.Decode(payload, span) != nil { // which counts failures
		return
	}
	// The guest chooses how much memory a byte becomes.
	if more := span.Cost() - len(payload); more > 0 && !s.bytes.AllowN(c.now, more) {
		s.count.lose(losses.ByteRate)
		return
	}
	c.spare = nil
	s.put(c, span)
}

const (
	// maxRead bounds the bytes of one read.
	maxRead = 64 << 10
	// minFrame is the least that a frame counts for, in bytes: even a short one costs time.
	minFrame = 512
	// minRead is the same for a read.
	minRead = 4 << 10
)

// charge reports whether the sandbox may have another payload decoded.
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

// newReader returns the frame reader. Another process can continue it if the connection can be
// handed over.
func (c *connection) newReader() *agent.Reader {
	if kept, ok := c.Conn.(*handover.Incoming); ok {
		kept.Stream().Around(c.before, c.after)
		return agent.NewStreamReader(kept.Stream(), c.limits.Wire)
	}
	return agent.NewReader(c, c.limits.Wire)
}

// Read implements io.Reader for the frame reader.
func (c *connection) Read(b []byte) (int, error) {
	for {
		if err := c.before(); err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(b[:min(len(b), maxRead)])
		c.after(n)
		if conn, ok := c.Conn.(syscall.Conn); !ok || !errors.Is(err, os.ErrDeadlineExceeded) || !host.Ready(conn) {
			return n, err
		}
	}
}

// before charges for the last read's work. Once Close has begun, it sets the deadline for the
// next read.
func (c *connection) before() error {
	c.settle()
	select {
	case <-c.sandbox.forwarder.closing:
		return c.closingDeadline()
	default:
		return nil
	}
}

// after keeps the sandbox to its reading pace, and the connection to the limits as they are
// now.
func (c *connection) after(n int) {
	if l := c.sandbox.limits.Load(); l != c.limits {
		c.limits, c.decoder = l, agent.NewDecoder(l.Wire)
		c.reader.Bound(l.Wire.MaxFrame)
	}
	c.sandbox.count.bytes.Add(uint64(n))
	c.now = time.Now()
	if n > 0 {
		c.sandbox.forwarder.wake()
		c.pace(max(n, minRead))
	}
	c.over = c.sandbox.cpu.overdrawn(c.now)
	c.meter.start(c.now)
}

// settle charges the work on what the last read brought.
func (c *connection) settle() {
	now := time.Now()
	c.sandbox.cpu.spend(c.meter.stop(now), now)
	if c.short > 0 {
		c.now = now
		c.pace(c.short)
		c.short = 0
	}
}

// closingDeadline lets reads continue while data keeps coming and Close still waits.
func (c *connection) closingDeadline() error {
	select {
	case <-c.sandbox.forwarder.abandon:
		return os.ErrDeadlineExceeded
	default:
		return c.SetReadDeadline(time.Now().Add(c.sandbox.forwarder.opts.Silence))
	}
}

// pace waits while the sandbox is ahead of its reading pace.
func (c *connection) pace(n int) {
	var wait time.Duration
	for ; n > 0; n -= maxRead { // the least burst of the limiter
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
