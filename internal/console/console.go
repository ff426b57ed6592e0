// Package console says on stderr what a command does that runs for long: on a terminal
// in one line that changes, otherwise in a line when something matters has changed.
// Warnings of one cause are said once a minute. Nobody waits for whoever reads it.
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
	written  chan struct{} // closed when the last one is
}

type line struct {
	text string
	live bool // the one that changes
}

const (
	// queued bounds the lines that wait for whoever reads; more are left out.
	queued = 256
	// closeTime bounds how long Close waits for it.
	closeTime = time.Second
)

// New returns a Console, which Close ends.
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

// Close returns when all has been written, or nobody reads it. Nothing is said after it.
func (c *Console) Close() {
	close(c.lines)
	select {
	case <-c.written:
	case <-time.After(closeTime):
	}
}

// Info says something.
func (c *Console) Info(format string, args ...any) {
	c.put(line{text: fmt.Sprintf(format, args...)})
}

// Warn says what went wrong; nil is nothing. An error in the chain may know what of its
// text stays the same from time to time, with a method Cause() string.
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

// Status is how it goes.
type Status struct {
	// Line tells all of it.
	Line string
	// Matters is what is said at once when it changes, Losses once a minute.
	Matters, Losses string
}

const (
	liveInterval   = 500 * time.Millisecond
	lossesInterval = time.Minute
)

// Watch shows how it goes until ctx is done, looking as often as every says. First is
// how it went to begin with.
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

// End says what has been, if anything, in the place of the line that changes.
func (c *Console) End(text string) {
	if c.live {
		c.put(line{live: true})
	}
	if text != "" {
		c.Info("%s", text)
	}
}
