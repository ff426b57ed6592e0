package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/export/tail"
	"github.com/shimtrace/shimtrace/internal/losses"
)

// caused is an error whose text changes from attempt to attempt.
type caused struct{ n int }

func (c caused) Error() string { return fmt.Sprintf("a web server answers: request %d", c.n) }
func (caused) Cause() string   { return "a web server answers" }

// TestShipmentSaysEachCauseOnce: a log that nobody reads must not grow with the attempts.
func TestShipmentSaysEachCauseOnce(t *testing.T) {
	var out bytes.Buffer
	c := console.New(&out)
	s := &shipment{console: c}
	refused := &ship.RejectedError{Reason: losses.CollectorRefused, Spans: 1, Err: errors.New("bad span")}
	for n := range 100 {
		s.update(ship.Status{Err: caused{n}})
		s.update(ship.Status{}) // as an attempt begins, for one
	}
	s.update(ship.Status{Shipped: 1, Notice: refused})
	s.update(ship.Status{Shipped: 2, Notice: refused})
	s.update(ship.Status{Shipped: 2, Notice: refused, Err: caused{101}})
	const notices = 40
	for n := range notices {
		s.update(ship.Status{Notice: fmt.Errorf("notice %c", 'A'+n)})
	}
	c.Close()
	text := out.String()
	if n := strings.Count(text, "a web server answers"); n != 1 {
		t.Errorf("said %d times:\n%s", n, text)
	}
	if n := strings.Count(text, "bad span"); n != 1 {
		t.Errorf("notice %d times:\n%s", n, text)
	}
	if n := strings.Count(text, "\n"); n > notices/2 {
		t.Errorf("%d lines", n)
	}
}

// TestShipmentPausesForAnother: while another process ships the journal, this one looks
// only now and then whether it still does.
func TestShipmentPausesForAnother(t *testing.T) {
	cfg := config.Default()
	cfg.Journal.Dir, cfg.Export.Endpoint = t.TempDir(), "http://127.0.0.1:4318"
	lock, err := journal.LockShipping(cfg.Journal.Dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var out bytes.Buffer
	c := console.New(&out)
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
		t.Fatal(err)
	}
	(&shipment{cfg: cfg, target: cfg.Export.Target, choice: ship.NewChoice(cfg.Journal.Dir, tail.Options{}), console: c}).run(ctx, time.Minute)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if ran := after.Utime.Nano() - before.Utime.Nano(); ran > int64(200*time.Millisecond) {
		t.Errorf("it ran for %v of a second", time.Duration(ran))
	}
	if !strings.Contains(out.String(), "another process ships the journal "+cfg.Journal.Dir) {
		t.Errorf("said %q", out.String())
	}
}
