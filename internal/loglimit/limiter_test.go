package loglimit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/reliability"
)

// clock is a Limiter's clock that a test sets.
type clock struct{ at time.Time }

func limiter() (*Limiter, *clock) {
	c := &clock{time.Unix(1000, 0)}
	return &Limiter{now: func() time.Time { return c.at }}, c
}

// TestOneLineAMinute: the same cause again and again, with other numbers in it.
func TestOneLineAMinute(t *testing.T) {
	l, c := limiter()
	lines, counted := 0, uint64(0)
	for i := range 3 * 60 * 10 {
		if n, ok := l.Allow("agent", fmt.Sprintf("frame of %d bytes from 0x%x is \"evil %d\" too long", i, i, i)); ok {
			lines++
			counted += n
		}
		c.at = c.at.Add(100 * time.Millisecond)
	}
	if lines != 3 || counted != 2*599 {
		t.Errorf("%d lines, which count %d swallowed ones", lines, counted)
	}
}

// TestInventedCauses: inventing a new cause for each line fills neither the log nor
// memory, and every line is counted.
func TestInventedCauses(t *testing.T) {
	l, c := limiter()
	lines, counted, all := 0, uint64(0), 0
	const day = 24 * time.Hour
	for begin := c.at; c.at.Sub(begin) < day; c.at = c.at.Add(100 * time.Millisecond) {
		word := strings.Map(func(r rune) rune { return r - '0' + 'a' }, fmt.Sprint(all))
		n, ok := l.Allow("agent", "this is "+word)
		all++
		if counted += n; ok {
			lines++
		}
	}
	if lines > 2*24*60+burst {
		t.Errorf("%d lines a day", lines)
	}
	k := l.kinds["agent"]
	if len(k.causes) > maxCauses {
		t.Errorf("%d causes are remembered", len(k.causes))
	}
	for _, c := range k.causes {
		counted += c.swallowed
	}
	if got := uint64(lines) + counted + k.swallowed; got != uint64(all) {
		t.Errorf("%d of %d lines are accounted for", got, all)
	}
	// Other kinds are not affected.
	if _, ok := l.Allow("relay", "cannot dial"); !ok {
		t.Error("another kind was swallowed")
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Guests",
		Fault: "a guest has its relay report ten errors a second for a day, no two of them alike",
		Pod:   "nothing",
		Lost:  "no span; of 864,000 lines of the log all but 2,890, which say how many they stand for",
	})
}

func TestCause(t *testing.T) {
	for text, same := range map[string]string{
		"accept: user 12 is refused":              "accept: user 99 is refused",
		`name "a b c" is taken`:                   `name "d" is taken`,
		"connect /run/x1: refused":                "connect /run/y2: refused",
		strings.Repeat("word ", maxWords) + "one": strings.Repeat("word ", maxWords) + "two",
	} {
		if causeOf(text) != causeOf(same) {
			t.Errorf("%q and %q are two causes", causeOf(text), causeOf(same))
		}
	}
	if causeOf("broken pipe") == causeOf("no such file") {
		t.Error("two causes are one")
	}
}

func TestHandler(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))).With("id", "c")
	for range 5 {
		log.Warn("agent's spans", "error", errors.New("broken frame"))
		log.Debug("detail")
	}
	log.Warn("agent's spans", "error", errors.New(strings.Repeat("x", 1<<20)))
	if n := strings.Count(out.String(), "broken frame"); n != 1 {
		t.Errorf("%d lines", n)
	}
	if n := strings.Count(out.String(), "detail"); n != 5 {
		t.Errorf("%d of 5 debug lines", n)
	}
	if out.Len() > 3*maxText {
		t.Errorf("%d bytes", out.Len())
	}
	out.Reset()
	l, c := limiter()
	log = slog.New(&handler{slog.NewTextHandler(&out, nil), l})
	for range 3 {
		log.Warn("agent's spans", "error", errors.New("broken frame"))
	}
	c.at = c.at.Add(interval)
	log.Warn("agent's spans", "error", errors.New("broken frame"))
	if !strings.Contains(out.String(), "swallowed=2") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("log has %s", out.String())
	}
}
