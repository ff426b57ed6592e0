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

// collectCommands returns collect and the older names of its parts.
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
		Usage: "ship the journal, receive the spans of Kata's own runtimes and of other programs",
		Description: "Relays start it by themselves when an endpoint is configured, and for Kata's runtimes. One\n" +
			"process collects for the whole host; a second one exits at once with code 0. It ships the\n" +
			"journals to their collectors. While one is away nothing is lost: spans that are not\n" +
			"shipped stay in the journal. It is also the endpoint that Kata's runtimes post to, as soon as\n" +
			"a relay asks for that, and hands each span to its sandbox's relay. See docs/kata.md.\n" +
			"With [otlp] in the configuration, or --otlp, programs of the host may send it their\n" +
			"spans. See docs/otlp-endpoint.md.\n\n" +
			"ship and receive are its older names.\n\n" +
			"Examples:\n   shimtrace collect --service     # from the host's start on\n" +
			"   shimtrace collect --otlp unix:/run/shimtrace/otlp.sock --otlp 127.0.0.1:4317\n" +
			"   shimtrace collect --listen 127.0.0.1:24268\n" +
			"   OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 shimtrace collect --once",
		Flags: []cli.Flag{
			journalFlag(),
			&cli.StringFlag{Name: "runtime", Usage: "ship only the journal of section [runtime.`INNER`] of the configuration"},
			&cli.BoolFlag{Name: "once", Usage: "ship the present content and exit; receive nothing"},
			&cli.StringFlag{Name: "listen", Usage: "receive at loopback `ADDRESS` at once (default: the configured one, when a relay asks)"},
			&cli.StringSliceFlag{Name: "otlp", Usage: "receive the spans of programs at `ADDRESS`, a loopback address or unix:PATH (default: as configured)"},
			&cli.BoolFlag{Name: "service", Usage: "stay, whether there is anything to do or not; wait while another process collects"},
			&cli.DurationFlag{Name: "idle", Value: time.Minute, Usage: "exit when there was nothing to ship and no relay for `DURATION`; 0: never"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := checkCollect(c); err != nil {
				return err
			}
			if c.Name != collectName {
				h.warn("%s is an older name of shimtrace %s, which ships the journal and receives runtimes' spans", c.Name, collectName)
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			say := console.New(h.stderr)
			defer say.Close()
			if c.Bool("once") {
				return shipOnce(ctx, asTold(c, h.config(c.String("runtime"))), say)
			}
			err := collectAll(ctx, h, c, say)
			if errors.Is(err, collect.ErrRunning) {
				say.Warn(err)
				return nil
			}
			return err
		},
	}
}

// checkCollect checks what the command line says.
func checkCollect(c *cli.Command) error {
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
	for _, at := range c.StringSlice("otlp") {
		if err := config.CheckOTLP(at); err != nil {
			return console.UsageError("--otlp: %v", err)
		}
	}
	return nil
}

// asTold returns a configuration with what the command line says instead.
func asTold(c *cli.Command, cfg config.Config) config.Config {
	if dir := c.String("journal"); dir != "" {
		cfg.Journal.Dir = dir
	}
	if at := c.String("listen"); at != "" {
		cfg.Jaeger.Listen = at
	}
	if at := c.StringSlice("otlp"); len(at) > 0 {
		cfg.OTLP.Listen = at
	}
	return cfg
}

// collectAll ships the journals and receives spans until there is nothing to do.
func collectAll(ctx context.Context, h *host, c *cli.Command, say *console.Console) error {
	load := func() (all []config.Config, err error) {
		if inner := c.String("runtime"); inner != "" || c.String("journal") != "" {
			cfg, r := config.Load(inner, h.getenv)
			return []config.Config{asTold(c, cfg)}, h.mistakes(r)
		}
		all, r := config.Journals(h.getenv)
		for i := range all {
			all[i] = asTold(c, all[i])
		}
		return all, h.mistakes(r)
	}
	reload := collect.Reloader(h.getenv, load)
	all, _ := load()
	if c.Name == "ship" && !all[0].Export.Ships() {
		return errNowhere
	}
	idle := c.Duration("idle")
	if c.Bool("service") {
		idle = 0
	}
	return collect.Run(ctx, collect.Options{
		Configurations: all,
		Reload:         reload,
		Listen:         c.String("listen") != "" || c.Name == "receive" || all[0].Jaeger.Receive == "on",
		Idle:           idle,
		Wait:           c.Bool("service"),
		Version:        version,
	}, say)
}

var errNowhere = errors.New("there is nowhere to ship to: set endpoint in [export] of the configuration, or OTEL_EXPORTER_OTLP_ENDPOINT")

// shipOnce ships the present content of a journal.
func shipOnce(ctx context.Context, cfg config.Config, say *console.Console) error {
	if !cfg.Export.Ships() {
		return errNowhere
	}
	err := collect.Once(ctx, cfg, say)
	if errors.Is(err, journal.ErrShipped) {
		say.Warn(err)
		return nil
	}
	return err
}
