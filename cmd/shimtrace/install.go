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
		Usage:     "link the traced runtimes and print containerd's configuration for them",
		ArgsUsage: "[INNER...]",
		Description: "Links a traced name of each inner shim (default: all on PATH) to the tracing shim in --bindir:\n" +
			"containerd-shim-runsc-traced-v1 for containerd-shim-runsc-v1, and so on. INNER is the name of\n" +
			"a shim's file or its middle (\"runsc\"). The two programs are copied there if they are\n" +
			"elsewhere, such as in a build directory. Files already up to date stay, and files that are\n" +
			"not shimtrace's are not overwritten. It prints what to add to containerd's configuration\n" +
			"and leaves that file alone.\n\n" +
			"--kata also turns on Kata's tracing, by a drop-in file beside each of its\n" +
			"configurations (of INNER, if named); --uninstall --kata removes only these.\n\n" +
			"Examples:\n   shimtrace install\n   shimtrace install --dry-run kata-qemu\n" +
			"   shimtrace install --kata kata-qemu\n   shimtrace install --uninstall",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bindir", Value: "/usr/local/bin", Usage: "install into `DIR`, which must be on containerd's PATH"},
			&cli.StringFlag{Name: "shim", Usage: "install the tracing shim `FILE` (default: " + shimname.Program + " beside this program, else on PATH)"},
			&cli.BoolFlag{Name: "uninstall", Usage: "remove the links and, without INNER, also the copied programs and Kata's drop-ins"},
			&cli.BoolFlag{Name: "force", Usage: "replace files that are not shimtrace's; uninstall even while sandboxes run"},
			&cli.BoolFlag{Name: "kata", Usage: "turn on the tracing of Kata's agent and runtime"},
			&cli.BoolFlag{Name: "kata-agent", Value: true, Usage: "with --kata: trace the agent; --kata-agent=false leaves it out"},
			&cli.BoolFlag{Name: "kata-runtime", Value: true, Usage: "with --kata: trace the runtime; --kata-runtime=false leaves it out"},
			&cli.StringSliceFlag{Name: "kata-config", Usage: "with --kata: change only Kata's configuration `FILE` (default: all at the known places)"},
			&cli.StringFlag{Name: "root", Aliases: []string{"kata-root"}, Value: h.root, Usage: "look for Kata's and containerd's configuration below `DIR`, the root of an image"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be done, change nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
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
			return install.Run(install.Options{
				Inners: c.Args().Slice(), BinDir: bindir, Shim: c.String("shim"), Tool: tool, Root: c.String("root"), Kata: kata,
				Uninstall: c.Bool("uninstall"), Force: c.Bool("force"), DryRun: c.Bool("dry-run"), JSON: c.Bool("json"),
				Getenv: h.getenv, Warn: h.warn,
			}, h.stdout)
		},
	}
}
