// Package console reports the progress of a long-running command on stderr: on a
// terminal in one changing line, otherwise in a line for each change that matters. It
// writes warnings of one cause at most once a minute. A slow reader holds nobody up.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Console writes lines. It is safe for concurrent use.
type Console struct {
	out      io.Writer
	live     bool
	warnings loglimit.Limiter
	lines    chan line
	written  chan struct{} // closed after the last line
}

type line struct {
	text string
	live bool // the changing line
}

const (
	// queued bounds the lines that wait for the reader; further ones are left out.
	queued = 256
	// closeTime bounds how long Close waits for the reader.
	closeTime = time.Second
)

// New returns a Console; Close ends it.
func New(out io.Writer) *Console {
	c := &Console{out: out, live: Width(out) > 0, lines: make(chan line, queued), written: make(chan struct{})}
	go c.write()
	return c
}

func (c *Console) write() {
	defer close(c.written)
	const erase = "\r\x1b[K"
	now := ""
	for l := range c.lines {
		text := ""
		if now != "" {
			text = erase
		}
		if l.live {
			now = l.text
		} else {
			text += "shimtrace: " + waterfall.Clean(l.text) + "\n"
		}
		if now != "" {
			text += erase + waterfall.Fit(now, max(20, Width(c.out)-1))
		}
		_, _ = io.WriteString(c.out, text)
	}
}

func (c *Console) put(l line) {
	select {
	case c.lines <- l:
	default:
	}
}

// Close waits until all lines are written, but not for a reader that hangs. Nothing may
// be written after it.
func (c *Console) Close() {
	close(c.lines)
	select {
	case <-c.written:
	case <-time.After(closeTime):
	}
}

// Info writes a line.
func (c *Console) Info(format string, args ...any) {
	c.put(line{text: fmt.Sprintf(format, args...)})
}

// Warn writes an error as a warning; nil writes nothing. An error in the chain may
// return the part of its text that stays the same by a method Cause() string.
func (c *Console) Warn(err error) {
	if err == nil {
		return
	}
	cause := err.Error()
	var known interface{ Cause() string }
	if errors.As(err, &known) {
		cause = known.Cause()
	}
	switch swallowed, ok := c.warnings.Allow("warning", cause); {
	case !ok:
	case swallowed > 0:
		c.put(line{text: fmt.Sprintf("%v (and %d times before)", err, swallowed)})
	default:
		c.put(line{text: err.Error()})
	}
}

// Step shows, on a terminal only, what is being done.
func (c *Console) Step(what string) {
	if c.live {
		c.put(line{what + " …", true})
	}
}

// Status is a command's progress.
type Status struct {
	// Line is the whole status.
	Line string
	// A change of Matters is reported at once, a change of Losses once a minute.
	Matters, Losses string
}

const (
	liveInterval   = 500 * time.Millisecond
	lossesInterval = time.Minute
)

// Watch shows the status until ctx is done, checking it at the given interval. The
// first status is not shown.
func (c *Console) Watch(ctx context.Context, every time.Duration, status func() Status) {
	if c.live {
		every = liveInterval
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	before := status()
	var said time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := status()
		switch {
		case c.live:
			c.put(line{s.Line, true})
		case s.Matters != before.Matters || s.Losses != before.Losses && time.Since(said) >= lossesInterval:
			c.Info("%s", s.Line)
			before, said = s, time.Now()
		}
	}
}

// End writes a final text, if any, in place of the changing line.
func (c *Console) End(text string) {
	if c.live {
		c.put(line{live: true})
	}
	if text != "" {
		c.Info("%s", text)
	}
}
