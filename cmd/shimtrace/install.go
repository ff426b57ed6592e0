package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v3"
)

func installCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "make the traced runtimes' names, and print containerd's configuration for them",
		ArgsUsage: "[INNER...]",
		Description: "For each inner shim (\"runc\" is containerd-shim-runc-v2; default: all on PATH) a link\n" +
			"containerd-shim-INNER-traced-v2 to the tracing shim is made in --bindir. The two programs\n" +
			"are copied there when they run from somewhere else, such as a build directory. What is\n" +
			"in order already stays as it is, and nothing that is not shimtrace's is overwritten.\n" +
			"containerd's configuration is printed, not changed.\n\n" +
			"Examples:\n   shimtrace install\n   shimtrace install --dry-run kata-qemu\n   shimtrace install --uninstall",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bindir", Value: "/usr/local/bin", Usage: "install into `DIR`, which must be on containerd's PATH"},
			&cli.StringFlag{Name: "shim", Usage: "install the tracing shim `FILE` (default: " + shimName + " beside this program, else on PATH)"},
			&cli.BoolFlag{Name: "uninstall", Usage: "remove the links, and without INNER the copied programs too"},
			&cli.BoolFlag{Name: "force", Usage: "replace files that are not shimtrace's; uninstall although sandboxes run"},
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing, print what would be done"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			inners, err := innerNames(c.Args().Slice())
			if err != nil {
				return err
			}
			bindir, err := filepath.Abs(c.String("bindir"))
			if err != nil {
				return err
			}
			in := &installer{bindir: bindir, inners: inners, force: c.Bool("force"), path: filepath.SplitList(h.getenv("PATH")), proc: "/proc"}
			if !c.Bool("uninstall") {
				return h.install(in, c.String("shim"), c.Bool("dry-run"), c.Bool("json"))
			}
			return h.uninstall(in, c.Bool("dry-run"), c.Bool("json"))
		},
	}
}

// installJSON is what install prints for scripts.
type installJSON struct {
	DryRun   bool            `json:"dry_run,omitempty"`
	Steps    []step          `json:"steps"`
	Runtimes []tracedRuntime `json:"runtimes,omitempty"`
}

func (h *host) install(in *installer, shim string, dryRun, asJSON bool) error {
	var err error
	if in.tool, err = h.executable(); err != nil {
		return err
	}
	if in.shim, err = in.findShim(shim); err != nil {
		return err
	}
	if len(in.inners) == 0 {
		if in.inners = in.innersOnPath(); len(in.inners) == 0 {
			return nothingFound("no containerd-shim-*-v2 is on PATH (%s): name the inner shim, for instance: shimtrace install kata-qemu", h.getenv("PATH"))
		}
	}
	for _, inner := range in.inners {
		if in.lookPath("containerd-shim-"+inner+"-v2") == "" {
			h.warn("containerd-shim-%s-v2 is not on PATH; unless containerd's PATH has it, set shim in [runtime.%s] of the configuration", inner, inner)
		}
	}
	steps, err := in.plan()
	if err != nil {
		return err
	}
	if err := h.apply(steps, dryRun, asJSON); err != nil {
		return err
	}
	var runtimes []tracedRuntime
	for _, inner := range in.inners {
		runtimes = append(runtimes, newRuntime(inner, in.bindir))
	}
	if asJSON {
		return json.NewEncoder(h.stdout).Encode(installJSON{dryRun, steps, runtimes})
	}
	return writeSnippets(h.stdout, runtimes)
}

func (h *host) uninstall(in *installer, dryRun, asJSON bool) error {
	steps, err := in.planUninstall()
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		return nothingFound("nothing of shimtrace is installed in %s; --bindir names another directory", in.bindir)
	}
	if err := h.apply(steps, dryRun, asJSON); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(h.stdout).Encode(installJSON{DryRun: dryRun, Steps: steps})
	}
	_, err = fmt.Fprintln(h.stdout, "\nTake the traced runtimes out of containerd's configuration, too.")
	return err
}

// apply does the steps, or not, and prints each.
func (h *host) apply(steps []step, dryRun, quiet bool) error {
	for _, s := range steps {
		if !dryRun {
			if err := s.do(); err != nil {
				return err
			}
		}
		if quiet {
			continue
		}
		prefix := ""
		if dryRun {
			prefix = "would "
		}
		if _, err := fmt.Fprintln(h.stdout, prefix+s.String()); err != nil {
			return err
		}
	}
	return nil
}
