package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/export/otlp"
	"github.com/shimtrace/shimtrace/internal/export/ship"
	"github.com/shimtrace/shimtrace/internal/loglimit"
	"github.com/shimtrace/shimtrace/internal/waterfall"
	"github.com/urfave/cli/v3"
)

func shipCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "ship",
		Usage: "ship the journal to the configured collector",
		Description: "Relays start this by themselves when an endpoint is configured; one process ships for\n" +
			"the whole host, and another one leaves at once with exit code 0. Nothing is lost while\n" +
			"the collector is away: what is not shipped stays in the journal.\n\n" +
			"Examples:\n   shimtrace ship\n   OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 shimtrace ship --once",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.StringFlag{Name: "runtime", Usage: "ship as section [runtime.`INNER`] of the configuration says"},
			&cli.BoolFlag{Name: "follow", Usage: "go on until nothing is recorded for the --idle time (the default)"},
			&cli.BoolFlag{Name: "once", Usage: "end when all there is now has been shipped"},
			&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "end when nothing was recorded for `DURATION`; 0 is never"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Bool("follow") && c.Bool("once") {
				return usageError("--follow and --once exclude each other")
			}
			if c.Duration("idle") < 0 {
				return usageError("--idle %s: a duration is not negative", c.Duration("idle"))
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			return h.ship(ctx, c.String("runtime"), c.String("journal"), c.Bool("once"), c.Duration("idle"))
		},
	}
}

func (h *host) ship(ctx context.Context, runtime, dir string, once bool, idle time.Duration) error {
	cfg := h.config(runtime)
	if cfg.Export.Endpoint == "" {
		return errors.New("there is nowhere to ship to: set endpoint in [export] of the configuration, or OTEL_EXPORTER_OTLP_ENDPOINT")
	}
	if dir == "" {
		dir = cfg.Journal.Dir
	}
	client, err := otlp.NewClient(cfg.Export)
	if err != nil {
		return err
	}
	// What the collector refuses is counted in the journal, beside other losses.
	j, err := journal.Open(dir, journal.Options{
		MaxBytes:     int64(cfg.Journal.MaxBytes),
		SegmentBytes: int64(cfg.Journal.SegmentBytes),
		Shipped:      true,
	})
	if err != nil {
		return err
	}
	progress := &shipProgress{h: h, live: terminal(h.stderr) > 0}
	s := &ship.Shipper{Dir: dir, Client: client, Once: once, Idle: idle, Drops: j, Progress: progress.update}
	err = s.Run(ctx)
	err = errors.Join(err, j.Close())
	progress.end()
	if errors.Is(err, ship.ErrHeld) {
		h.warn("another process ships %s already", dir)
		return nil
	}
	return err
}

// shipProgress prints what the shipper does on stderr: on a terminal one line that
// changes, otherwise a line for each cause of a failure and one at the end. What the
// collector says of spans that it took, refused or failed on is a line in any case.
type shipProgress struct {
	h      *host
	live   bool
	last   ship.Status
	failed string
	limit  loglimit.Limiter
	said   map[string]bool
}

// maxSaid bounds the different things that are printed of what a collector says.
const maxSaid = 20

func (p *shipProgress) update(s ship.Status) {
	p.last = s
	if s.Notice != nil {
		p.notice(s.Notice)
	}
	if p.live {
		fmt.Fprintf(p.h.stderr, "\r\x1b[K%s", waterfall.Fit(statusLine(s), max(20, terminal(p.h.stderr)-1)))
		return
	}
	failure := ""
	if s.Err != nil {
		failure = ship.Cause(s.Err)
	}
	if failure != "" && failure != p.failed {
		if _, ok := p.limit.Allow("ship", failure); ok {
			p.h.warn("%s; trying again, and nothing is lost meanwhile", waterfall.Clean(s.Err.Error()))
		}
	}
	p.failed = failure
}

// notice prints each cause once.
func (p *shipProgress) notice(err error) {
	cause := ship.Cause(err)
	if p.said[cause] || len(p.said) >= maxSaid {
		return
	}
	if p.said == nil {
		p.said = make(map[string]bool)
	}
	p.said[cause] = true
	if p.live {
		fmt.Fprint(p.h.stderr, "\r\x1b[K")
	}
	p.h.warn("%s", waterfall.Clean(err.Error()))
}

func (p *shipProgress) end() {
	if p.live {
		fmt.Fprint(p.h.stderr, "\r\x1b[K")
	}
	p.h.warn("%s", statusLine(p.last))
}

func statusLine(s ship.Status) string {
	line := spanCount(s.Shipped) + " shipped"
	rejected := 0
	for _, n := range s.Rejected {
		rejected += n
	}
	if rejected > 0 {
		line += fmt.Sprintf(", %d refused", rejected)
	}
	if s.Aside > 0 {
		line += fmt.Sprintf(", %d set aside", s.Aside)
	}
	if s.Err != nil {
		line += ", trying again: " + waterfall.Clean(s.Err.Error())
	}
	return line
}
