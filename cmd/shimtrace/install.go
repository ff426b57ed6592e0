package main

import (
	"context"
	"path/filepath"

	"github.com/urfave/cli/v3"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/install"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

func installCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "link the traced runtimes and have containerd know them",
		ArgsUsage: "[INNER...]",
		Description: "Links a traced name of each inner shim (default: all on PATH) to the tracing shim in --bindir:\n" +
			"containerd-shim-runsc-traced-v1 for containerd-shim-runsc-v1, and so on. INNER is the name of\n" +
			"a shim's file or its middle (\"runsc\"). The two programs are copied there if they are\n" +
			"elsewhere, such as in a build directory. Files already up to date stay, and files that are\n" +
			"not shimtrace's are not overwritten. It prints what to add to containerd's configuration.\n\n" +
			"--containerd writes that instead: a drop-in where containerd's file imports a directory,\n" +
			"else a block at the end of that file, or of the template of k3s and RKE2. A handler that\n" +
			"resembles another one copies its options, annotations and snapshotter. --restart also\n" +
			"restarts containerd, which containers do not notice, and waits until its CRI has loaded\n" +
			"the handlers. If it does not, the configuration is put back as it was.\n\n" +
			"--kata also turns on Kata's tracing, by a drop-in file beside each of its\n" +
			"configurations (of INNER, if named); --uninstall --kata removes only these.\n\n" +
			"--uninstall leaves everything as it was, bit for bit, but for the journal.\n\n" +
			"Examples:\n   shimtrace install --containerd --dry-run\n   shimtrace install --restart\n" +
			"   shimtrace install --kata --restart kata-qemu\n   shimtrace install --uninstall --restart",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bindir", Value: "/usr/local/bin", Usage: "install into `DIR`, which must be on containerd's PATH"},
			&cli.StringFlag{Name: "shim", Usage: "install the tracing shim `FILE` (default: " + shimname.Program + " beside this program, else on PATH)"},
			&cli.BoolFlag{Name: "uninstall", Usage: "remove the links and, without INNER, also the copied programs, the handlers in containerd's configuration and Kata's drop-ins"},
			&cli.BoolFlag{Name: "force", Usage: "replace files that are not shimtrace's; uninstall even while sandboxes run"},
			&cli.StringFlag{Name: "config", Usage: "also install `FILE` as shimtrace's configuration"},
			&cli.BoolFlag{Name: "containerd", Usage: "write the traced handlers into containerd's configuration"},
			&cli.StringFlag{Name: "containerd-config", Usage: "with --containerd: change containerd's configuration `FILE` (default: all at the known places)"},
			&cli.StringFlag{Name: "containerd-address", Usage: "with --restart: ask the CRI at `SOCKET` (default: as its configuration says)"},
			&cli.BoolFlag{Name: "restart", Usage: "--containerd, and restart it (by systemd), and look whether it has loaded the handlers"},
			&cli.StringFlag{Name: "restart-with", Usage: "--restart, but by the shell `COMMAND`"},
			&cli.BoolFlag{Name: "kata", Usage: "turn on the tracing of Kata's agent and runtime"},
			&cli.BoolFlag{Name: "kata-agent", Value: true, Usage: "with --kata: trace the agent; --kata-agent=false leaves it out"},
			&cli.BoolFlag{Name: "kata-runtime", Value: true, Usage: "with --kata: trace the runtime; --kata-runtime=false leaves it out"},
			&cli.StringSliceFlag{Name: "kata-config", Usage: "with --kata: change only Kata's configuration `FILE` (default: all at the known places)"},
			&cli.StringFlag{Name: "root", Aliases: []string{"kata-root"}, Value: h.root, Usage: "do all of it below `DIR`, the root of an image or of a host"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be done, with a diff of containerd's configuration; change nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object"},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			bindir, err := filepath.Abs(c.String("bindir"))
			if err != nil {
				return err
			}
			kata := &install.Kata{Agent: c.Bool("kata-agent"), Runtime: c.Bool("kata-runtime"), Files: c.StringSlice("kata-config")}
			if !c.Bool("kata") {
				kata = nil
				for _, flag := range []string{"kata-agent", "kata-runtime", "kata-config"} {
					if c.IsSet(flag) {
						return console.UsageError("--%s says more about --kata: add that", flag)
					}
				}
			}
			tool, err := h.executable()
			if err != nil {
				return err
			}
			say := console.New(h.stderr)
			defer say.Close()
			ctx, stop := untilSignal(ctx)
			defer stop()
			return install.Run(ctx, install.Options{
				Inners: c.Args().Slice(), BinDir: bindir, Shim: c.String("shim"), Tool: tool, Root: c.String("root"), Kata: kata, Containerd: containerdOptions(c), Config: c.String("config"),
				Uninstall: c.Bool("uninstall"), Force: c.Bool("force"), DryRun: c.Bool("dry-run"), JSON: c.Bool("json"),
				Getenv: h.getenv, Warn: h.warn, Step: say.Step,
			}, h.stdout)
		},
	}
}

// containerdOptions returns what the flags say about containerd; nil if none does.
func containerdOptions(c *cli.Command) *install.Containerd {
	o := &install.Containerd{Config: c.String("containerd-config"), Address: c.String("containerd-address"), Command: c.String("restart-with")}
	o.Restart = c.Bool("restart") || o.Command != ""
	if !c.Bool("containerd") && *o == (install.Containerd{}) {
		return nil
	}
	return o
}
