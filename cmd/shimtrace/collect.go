package main

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/collect"
	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/export/journal"
)

const collectName = "collect"

// collectCommands are collect, and the names that its parts had.
func collectCommands(h *host) []*cli.Command {
	all := []*cli.Command{collectCommand(h)}
	for _, name := range []string{"ship", "receive"} {
		alias := collectCommand(h)
		alias.Name, alias.Usage, alias.Hidden = name, "the same as "+collectName, true
		all = append(all, alias)
	}
	return all
}

func collectCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  collectName,
		Usage: "ship the journal, and receive the spans of Kata's own runtimes",
		Description: "Relays start this by themselves when an endpoint is configured, and for Kata's runtimes; one\n" +
			"process collects for the whole host, and another one leaves at once with exit code 0. It ships\n" +
			"the journals to their collectors: nothing is lost while these are away, for what is not shipped\n" +
			"stays in the journal. It is the endpoint that Kata's runtimes post to, from when the first relay\n" +
			"asks for that, and brings each span to the relay of its sandbox. See docs/operation.md.\n\n" +
			"ship and receive are older names for it.\n\n" +
			"Examples:\n   shimtrace collect --idle 0      # as a service, from before the first relay\n" +
			"   shimtrace collect --listen 127.0.0.1:24268\n" +
			"   OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 shimtrace collect --once",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.StringFlag{Name: "runtime", Usage: "ship as section [runtime.`INNER`] of the configuration says, and no other journal"},
			&cli.BoolFlag{Name: "once", Usage: "ship what there is now, and end; receive nothing"},
			&cli.StringFlag{Name: "listen", Usage: "take posts at `ADDRESS`, of the loopback interface, in the place of the configured one, and at once"},
			&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "end when there was nothing to be shipped and no relay for `DURATION`; 0 is never"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			if c.Duration("idle") < 0 {
				return console.UsageError("--idle %s: a duration is not negative", c.Duration("idle"))
			}
			if at := c.String("listen"); at != "" {
				if a, err := netip.ParseAddrPort(at); err != nil || !a.Addr().IsLoopback() {
					return console.UsageError("--listen %s: not an address of the loopback interface with a port, such as 127.0.0.1:276", at)
				}
			}
			if c.Name != collectName {
				h.warn("%s is an older name of shimtrace %s, which ships the journal and receives runtimes' spans", c.Name, collectName)
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			say := console.New(h.stderr)
			defer say.Close()
			one := func(cfg config.Config) config.Config {
				if dir := c.String("journal"); dir != "" {
					cfg.Journal.Dir = dir
				}
				if at := c.String("listen"); at != "" {
					cfg.Jaeger.Listen = at
				}
				return cfg
			}
			if c.Bool("once") {
				return shipOnce(ctx, one(h.config(c.String("runtime"))), say)
			}
			load := func() (all []config.Config, err error) {
				if inner := c.String("runtime"); inner != "" || c.String("journal") != "" {
					cfg, r := config.Load(inner, h.getenv)
					return []config.Config{one(cfg)}, h.mistakes(r)
				}
				all, r := config.Journals(h.getenv)
				for i := range all {
					all[i].Jaeger.Listen = one(all[i]).Jaeger.Listen
				}
				return all, h.mistakes(r)
			}
			all, _ := load()
			if c.Name == "ship" && all[0].Export.Endpoint == "" {
				return errNowhere
			}
			err := collect.Run(ctx, collect.Options{
				Configurations: all,
				Reload:         collect.Reloader(h.getenv, load),
				Listen:         c.String("listen") != "" || c.Name == "receive" || all[0].Jaeger.Receive == "on",
				Idle:           c.Duration("idle"),
			}, say)
			if errors.Is(err, collect.ErrHeld) {
				say.Warn(err)
				return nil
			}
			return err
		},
	}
}

var errNowhere = errors.New("there is nowhere to ship to: set endpoint in [export] of the configuration, or OTEL_EXPORTER_OTLP_ENDPOINT")

// shipOnce ships what is in a journal.
func shipOnce(ctx context.Context, cfg config.Config, say *console.Console) error {
	if cfg.Export.Endpoint == "" {
		return errNowhere
	}
	s := collect.NewShipment(cfg, say)
	ctx, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		say.Watch(ctx, time.Second, func() console.Status { return console.Status{Line: collect.Line(s.Status())} })
	}()
	err := s.Ship(ctx, true, 0)
	stop()
	<-watched
	say.End(collect.Line(s.Status()))
	if errors.Is(err, journal.ErrShipped) {
		say.Warn(err)
		return nil
	}
	return err
}
