package forwarder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/shimtrace/shimtrace/forwarder/agentwire"
	"github.com/shimtrace/shimtrace/forwarder/listen"
)

// connection is one agent's, being read.
type connection struct {
	listen.Conn
	sandbox *sandbox
	info    ConnInfo
	end     error // how it ended, once it has; nil between two frames
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
			c.sandbox.count.panics.Add(1)
			err = fmt.Errorf("read agent spans: panic: %v", v)
		}
	}()
	reader := agentwire.NewReader(c, c.sandbox.wire)
	decoder := agentwire.NewDecoder(c.sandbox.wire)
	for {
		payload, err := reader.Next()
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("%w: %w", ErrClosed, err)
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
func (c *connection) decode(d *agentwire.Decoder, payload []byte) (next *agentwire.Decoder) {
	s := c.sandbox
	defer func() {
		if recover() != nil {
			s.count.panics.Add(1)
			next = agentwire.NewDecoder(s.wire)
		}
	}()
	span := new(agentwire.Span)
	if d.Decode(payload, span) == nil { // which counts what fails
		s.put(c, span)
	}
	return d
}

const (
	// maxRead is how many bytes are read at once, at most.
	maxRead = 64 << 10
	// minFrame is what a frame counts for, at least, in bytes that are read: it
	// costs time however short it is.
	minFrame = 512
)

// charge says whether the sandbox may have another payload decoded.
func (c *connection) charge(size int) bool {
	s := c.sandbox
	now := time.Now()
	if size < minFrame {
		c.pace(now, minFrame-size)
	}
	if !s.spans.AllowN(now, 1) {
		s.count.spanRate.Add(1)
		return false
	}
	if !s.bytes.AllowN(now, size) {
		s.count.byteRate.Add(1)
		return false
	}
	return true
}

// Read implements io.Reader for the frame reader: it keeps to the pace that the
// sandbox is read at, and to the end that Close sets.
func (c *connection) Read(b []byte) (int, error) {
	select {
	case <-c.sandbox.forwarder.closing:
		if err := c.closingDeadline(); err != nil {
			return 0, err
		}
	default:
	}
	n, err := c.Conn.Read(b[:min(len(b), maxRead)])
	c.sandbox.count.bytes.Add(uint64(n))
	c.pace(time.Now(), n)
	return n, err
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
func (c *connection) pace(now time.Time, n int) {
	if n == 0 {
		return
	}
	wait := c.sandbox.reads.ReserveN(now, n).DelayFrom(now)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.sandbox.forwarder.abandon:
	}
}
