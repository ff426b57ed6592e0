package vm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// maxConsole bounds what is kept of a guest's output. Lines beyond it still go
// to the log and wake nobody.
const maxConsole = 8 << 20

// A console collects the lines that a guest prints.
type console struct {
	log io.Writer

	mu    sync.Mutex
	part  []byte // an unfinished line
	lines []string
	size  int
	more  chan struct{} // closed, and replaced, when lines grows
	ended bool
}

func newConsole(log io.Writer) *console {
	return &console{log: log, more: make(chan struct{})}
}

// Write takes the output as it comes, in pieces of any length.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.part = append(c.part, p...)
	for {
		i := bytes.IndexByte(c.part, '\n')
		if i < 0 && len(c.part) <= maxConsole {
			return len(p), nil
		}
		if i < 0 {
			i = len(c.part) - 1
		}
		line := strings.Trim(string(c.part[:i]), "\r")
		c.part = c.part[i+1:]
		fmt.Fprintln(c.log, line)
		if c.size += len(line) + 1; c.size <= maxConsole {
			c.lines = append(c.lines, line)
			c.wake()
		}
	}
}

// end says that no more will come.
func (c *console) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.wake()
}

func (c *console) wake() {
	close(c.more)
	c.more = make(chan struct{})
}

// wait returns the first line that matches, and its submatches.
func (c *console) wait(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	for next := 0; ; {
		c.mu.Lock()
		lines, more, ended := c.lines[next:], c.more, c.ended
		c.mu.Unlock()
		for _, line := range lines {
			if m := pattern.FindStringSubmatch(line); m != nil {
				return m, nil
			}
		}
		next += len(lines)
		if ended {
			return nil, fmt.Errorf("wait for %q: the guest has ended; its last lines:\n%s", pattern, c.tail())
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %q: %w; the guest's last lines:\n%s", pattern, context.Cause(ctx), c.tail())
		}
	}
}

func (c *console) tail() string {
	const most = 40
	lines := c.all()
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

func (c *console) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[:len(c.lines):len(c.lines)]
}
