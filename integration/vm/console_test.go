package vm

import (
	"context"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestConsoleIsLinesHoweverItComes(t *testing.T) {
	var log strings.Builder
	c := newConsole(&log)
	for _, piece := range []string{"on", "e\r\ntwo\n\nfo", "ur\n", "unfinished"} {
		io.WriteString(c, piece)
	}
	if got, want := c.all(), []string{"one", "two", "", "four"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	if got, want := log.String(), "one\ntwo\n\nfour\n"; got != want {
		t.Errorf("log %q, want %q", got, want)
	}
}

func TestConsoleKeepsABoundedPart(t *testing.T) {
	c := newConsole(io.Discard)
	line := strings.Repeat("x", 1<<20-1) + "\n"
	for range 2 * maxConsole / len(line) {
		io.WriteString(c, line)
	}
	if got := len(c.all()); got != maxConsole/len(line) {
		t.Errorf("%d lines are kept", got)
	}
	for range 2 * maxConsole / len(line) {
		io.WriteString(c, line[1:len(line)-1]) // a line without an end
	}
	if cap(c.part) > 4*maxConsole {
		t.Errorf("%d bytes of an endless line are kept", cap(c.part))
	}
}

func TestConsoleWakesWhoWaits(t *testing.T) {
	c := newConsole(io.Discard)
	io.WriteString(c, "cid 3\n")
	go func() {
		for _, piece := range []string{"other\n", "cid ", "45\n"} {
			time.Sleep(time.Millisecond)
			io.WriteString(c, piece)
		}
		c.end()
	}()
	match, err := c.wait(t.Context(), regexp.MustCompile(`^cid (4\d)$`))
	if err != nil || match[1] != "45" {
		t.Errorf("waiting gives %q, %v", match, err)
	}
	if _, err := c.wait(t.Context(), regexp.MustCompile("never")); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("waiting at the end gives %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newConsole(io.Discard).wait(ctx, regexp.MustCompile("never")); err == nil {
		t.Error("waiting in vain gives no error")
	}
}
