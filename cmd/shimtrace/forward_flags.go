package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/shim/kata/agentconfig"
)

// forwardOptions is what the command line and the configuration say.
type forwardOptions struct {
	cfg     config.Config
	name    string // service.name
	sockets []listen.Pattern
	vsock   bool
	cid     uint32 // of the one VM that is served over VSOCK, 0 for all
	dump    bool
	json    bool
	keepIDs bool
	user    *user.User // nil: ourselves
	level   slog.Level
}

// forwardFlags are those of Kata's trace-forwarder (3.28 to 4.1), and our own.
func forwardFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "trace-name", Value: "kata-agent", Usage: "the spans' service.name is `NAME`"},
		&cli.StringSliceFlag{Name: "socket-path", Usage: "the VMM's hybrid VSOCK socket `PATH` (Cloud Hypervisor, Firecracker, Dragonball), of one VM, or with {sandbox} in the place of the sandbox's id of all VMs; may be repeated"},
		&cli.BoolFlag{Name: "all", Usage: "serve VSOCK and the known hybrid VSOCK sockets of all VMMs"},
		&cli.StringFlag{Name: "vsock-cid", Value: "any", Usage: "serve the VM with `CID` only (QEMU)"},
		&cli.StringFlag{Name: "vsock-port", Value: strconv.Itoa(listen.Port), Usage: "the `PORT` that agents send to, which is always this one"},
		&cli.StringFlag{Name: "otlp-endpoint", Usage: "ship to the collector at `URL`, such as http://127.0.0.1:4318 (default: the configured one)"},
		&cli.StringFlag{Name: "journal", Usage: "write to the journal in `DIR` (default: journal.dir of the configuration)"},
		&cli.BoolFlag{Name: "keep-trace-ids", Usage: "trust the guests: leave spans in the traces that they name, to join those of Kata's runtime"},
		&cli.StringFlag{Name: "user", Usage: "read, store and ship as `USER`, in a process of its own; only the listening stays with root"},
		&cli.BoolFlag{Name: "dump-only", Usage: "print the spans on stdout as they come, each a line of OTLP/JSON; store and ship nothing"},
		&cli.BoolFlag{Name: "json", Usage: "print a JSON object with all counts at the end"},
		&cli.StringFlag{Name: "log-level", Aliases: []string{"l"}, Value: "info", Usage: "say what is of `LEVEL` or above: trace, debug, info, warn, error, critical"},
		&cli.StringFlag{Name: "jaeger-host", Hidden: true},
		&cli.StringFlag{Name: "jaeger-port", Hidden: true},
	}
}

// forwardLevels are the names of Kata's trace-forwarder.
var forwardLevels = map[string]slog.Level{
	"trace": slog.LevelDebug, "debug": slog.LevelDebug, "info": slog.LevelInfo,
	"warn": slog.LevelWarn, "warning": slog.LevelWarn, "error": slog.LevelError, "critical": slog.LevelError,
}

func (h *host) forwardOptions(c *cli.Command) (*forwardOptions, error) {
	o := &forwardOptions{
		name: c.String("trace-name"), dump: c.Bool("dump-only"), json: c.Bool("json"), keepIDs: c.Bool("keep-trace-ids"),
	}
	level, known := forwardLevels[strings.ToLower(c.String("log-level"))]
	o.level = level
	paths := c.StringSlice("socket-path")
	switch {
	case c.IsSet("jaeger-host"), c.IsSet("jaeger-port"):
		return nil, console.UsageError("--jaeger-host and --jaeger-port: spans are sent as OTLP, which Jaeger takes at port 4318: --otlp-endpoint http://HOST:4318")
	case o.name == "":
		return nil, console.UsageError("--trace-name is empty")
	case !known:
		return nil, console.UsageError("--log-level %q is not one of trace, debug, info, warn, error, critical", c.String("log-level"))
	case c.String("vsock-port") != strconv.Itoa(listen.Port):
		return nil, console.UsageError("--vsock-port %q: the Kata agent sends to port %d and no other", c.String("vsock-port"), listen.Port)
	case c.Bool("all") && len(paths) > 0:
		return nil, console.UsageError("--all and --socket-path exclude each other")
	case o.dump && o.json:
		return nil, console.UsageError("--dump-only and --json both want stdout")
	case o.dump && (c.IsSet("otlp-endpoint") || c.IsSet("journal") || o.keepIDs):
		return nil, console.UsageError("--dump-only stores and ships nothing, and changes no ids: leave out --otlp-endpoint, --journal and --keep-trace-ids")
	case len(paths) > 0 && c.IsSet("vsock-cid"):
		return nil, console.UsageError("--vsock-cid is for VSOCK, --socket-path for hybrid VSOCK: there is no VM with both")
	}
	cfg, err := h.strictConfig("")
	if err != nil {
		return nil, err
	}
	o.cfg = cfg
	o.vsock = len(paths) == 0
	if c.Bool("all") {
		o.sockets = agentconfig.Sockets(cfg.Agent)
	}
	for _, path := range paths {
		p, err := socketPattern(path)
		if err != nil {
			return nil, console.UsageError("--socket-path %q: %w", path, err)
		}
		o.sockets = append(o.sockets, p)
	}
	if o.cid, err = vsockCID(c.String("vsock-cid")); err != nil {
		return nil, console.UsageError("--vsock-cid %q: %w", c.String("vsock-cid"), err)
	}
	if dir := c.String("journal"); dir != "" {
		if o.cfg.Journal.Dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	if c.IsSet("otlp-endpoint") {
		if err := o.shipTo(c.String("otlp-endpoint")); err != nil {
			return nil, err
		}
	}
	if name := c.String("user"); name != "" {
		if o.user, err = lookupUser(name); err != nil {
			return nil, console.UsageError("--user %q: %w", name, err)
		}
	}
	return o, nil
}

// shipTo makes endpoint the collector, whatever the configuration says.
func (o *forwardOptions) shipTo(endpoint string) error {
	if err := o.cfg.Export.SetEndpoint(endpoint); err != nil {
		return console.UsageError("--otlp-endpoint: %w", err)
	}
	return nil
}

// socketPattern makes a pattern of a path, which need not have a placeholder.
func socketPattern(path string) (listen.Pattern, error) {
	if path == "" {
		return listen.Pattern{}, errors.New("the path is empty")
	}
	// {ID} is what kata-runtime env has in SocketPath.
	path, err := filepath.Abs(strings.ReplaceAll(path, "{ID}", sandboxPlaceholder))
	if err != nil {
		return listen.Pattern{}, err
	}
	if path == "/" {
		return listen.Pattern{}, errors.New("that is no socket")
	}
	return listen.Pattern{VMM: "--socket-path", Path: path}, nil
}

// vsockCID returns the CID of the only VM to be served, 0 for all. Kata's
// trace-forwarder took the address to listen at here, of which the host has one.
func vsockCID(text string) (uint32, error) {
	const host, firstGuest = 2, 3
	if text == "any" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	switch {
	case err != nil:
		return 0, errors.New(`neither a number nor "any"`)
	case n == host || n == 1<<32-1:
		return 0, nil
	case n < firstGuest:
		return 0, fmt.Errorf("no VM has it: they begin at %d", firstGuest)
	}
	return uint32(n), nil
}

// leavesOut tells that a VM's spans are not asked for. They are read, for an agent that
// is not read delays its VM's end.
func (o *forwardOptions) leavesOut(from listen.Origin) bool {
	return o.cid != 0 && from.CID != 0 && from.CID != o.cid
}
