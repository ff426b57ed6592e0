package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forward"
)

func forwardCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:  "forward",
		Usage: "receive the spans of Kata agents on a host without the tracing shim",
		Description: "Replaces Kata's own trace-forwarder, for all VMs of the host at once. It needs no collector:\n" +
			"spans go to the journal and are shipped from there to --otlp-endpoint or the configured\n" +
			"endpoint whenever it is reachable. Without an endpoint the journal is the store; see\n" +
			"shimtrace list. See docs/forwarder.md.\n\n" +
			"Examples:\n   shimtrace forward                     # QEMU's VMs\n" +
			"   shimtrace forward --all --otlp-endpoint http://127.0.0.1:4318\n" +
			"   shimtrace forward --socket-path '/run/vc/vm/{sandbox}/clh.sock' --user nobody\n" +
			"   shimtrace forward --dump-only",
		Flags:                     forwardFlags(),
		DisableSliceFlagSeparator: true,
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := noArguments(c); err != nil {
				return err
			}
			o, err := h.forwardOptions(c)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(ctx)
			defer stop()
			report := console.New(h.stderr)
			defer report.Close()
			return forward.Run(ctx, o, h.stdout, report)
		},
	}
}

// forwardFlags returns the flags of Kata's trace-forwarder (3.28 to 4.1) that have an
// effect here, and shimtrace's own.
func forwardFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "trace-name", Value: "kata-agent", Usage: "set the spans' service.name to `NAME`"},
		&cli.StringSliceFlag{Name: "socket-path", Usage: "serve the hybrid VSOCK socket `PATH` (Cloud Hypervisor, Firecracker, Dragonball) of one VM, or of all VMs with {sandbox} for the sandbox's id; may be repeated"},
		&cli.BoolFlag{Name: "all", Usage: "serve VSOCK and the known hybrid VSOCK sockets of all VMMs"},
		&cli.StringFlag{Name: "otlp-endpoint", Usage: "ship to the collector at `URL`, such as http://127.0.0.1:4318 (default: the configured one)"},
		&cli.StringFlag{Name: "journal", Usage: "write to the journal in `DIR` (default: journal.dir of the configuration)"},
		&cli.BoolFlag{Name: "keep-trace-ids", Usage: "trust the guests: leave spans in the traces that they name, which may be those of Kata's runtime"},
		&cli.StringFlag{Name: "user", Usage: "read, store and ship as `USER`, in a separate process; root only listens"},
		&cli.BoolFlag{Name: "dump-only", Usage: "print spans on stdout as they arrive, one line of OTLP/JSON each; store and ship nothing"},
		&cli.BoolFlag{Name: "json", Usage: "print a JSON object with all counts at the end"},
	}
}

func (h *host) forwardOptions(c *cli.Command) (*forward.Options, error) {
	o := &forward.Options{
		Name: c.String("trace-name"), Paths: c.StringSlice("socket-path"), All: c.Bool("all"), User: c.String("user"),
		Dump: c.Bool("dump-only"), JSON: c.Bool("json"), KeepTraceIDs: c.Bool("keep-trace-ids"),
	}
	switch {
	case o.Name == "":
		return nil, console.UsageError("--trace-name is empty")
	case o.All && len(o.Paths) > 0:
		return nil, console.UsageError("--all and --socket-path exclude each other")
	case o.Dump && o.JSON:
		return nil, console.UsageError("--dump-only and --json both want stdout")
	case o.Dump && (c.IsSet("otlp-endpoint") || c.IsSet("journal") || o.KeepTraceIDs):
		return nil, console.UsageError("--dump-only stores and ships nothing, and changes no ids: leave out --otlp-endpoint, --journal and --keep-trace-ids")
	}
	var err error
	if o.Config, err = h.strictConfig(""); err != nil {
		return nil, err
	}
	if dir := c.String("journal"); dir != "" {
		if o.Config.Journal.Dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	if c.IsSet("otlp-endpoint") {
		// It overrides the configuration.
		if err := o.Config.Export.SetEndpoint(c.String("otlp-endpoint")); err != nil {
			return nil, console.UsageError("--otlp-endpoint: %w", err)
		}
	}
	return o, nil
}
