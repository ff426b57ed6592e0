package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/kataconfig"
	"github.com/urfave/cli/v3"
)

func installCommand(h *host) *cli.Command {
	return &cli.Command{
		Name:      "install",
		Usage:     "make the traced runtimes' names, and print containerd's configuration for them",
		ArgsUsage: "[INNER...]",
		Description: "For each inner shim (default: all on PATH) a link to the tracing shim is made in --bindir:\n" +
			"containerd-shim-runsc-traced-v1 for containerd-shim-runsc-v1, and so on. INNER is the name\n" +
			"of a shim's file, or its middle (\"runsc\"). The two programs\n" +
			"are copied there when they run from somewhere else, such as a build directory. What is\n" +
			"in order already stays as it is, and nothing that is not shimtrace's is overwritten.\n" +
			"containerd's configuration is printed, not changed.\n\n" +
			"With --kata, Kata's tracing is turned on, too, by a drop-in file beside each of its\n" +
			"configurations (of INNER, if named); --uninstall --kata removes just these.\n\n" +
			"Examples:\n   shimtrace install\n   shimtrace install --dry-run kata-qemu\n" +
			"   shimtrace install --kata kata-qemu\n   shimtrace install --uninstall",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "bindir", Value: "/usr/local/bin", Usage: "install into `DIR`, which must be on containerd's PATH"},
			&cli.StringFlag{Name: "shim", Usage: "install the tracing shim `FILE` (default: " + shimName + " beside this program, else on PATH)"},
			&cli.BoolFlag{Name: "uninstall", Usage: "remove the links, and without INNER the copied programs and Kata's drop-ins too"},
			&cli.BoolFlag{Name: "force", Usage: "replace files that are not shimtrace's; uninstall although sandboxes run"},
			&cli.BoolFlag{Name: "kata", Usage: "turn on the tracing of Kata's agent and runtime"},
			&cli.BoolFlag{Name: "kata-agent", Value: true, Usage: "with --kata: the agent's, unless this is --kata-agent=false"},
			&cli.BoolFlag{Name: "kata-runtime", Value: true, Usage: "with --kata: the runtime's, unless this is --kata-runtime=false"},
			&cli.StringSliceFlag{Name: "kata-config", Usage: "with --kata: of the configuration `FILE` (default: all at the known places)"},
			&cli.StringFlag{Name: "root", Aliases: []string{"kata-root"}, Value: h.root, Usage: "look for Kata and for containerd's configuration below `DIR`, the root of an image"},
			&cli.BoolFlag{Name: "dry-run", Usage: "change nothing, print what would be done"},
			&cli.BoolFlag{Name: "json", Usage: "print a JSON object"},
		},
		Action: func(_ context.Context, c *cli.Command) error {
			bindir, err := filepath.Abs(c.String("bindir"))
			if err != nil {
				return err
			}
			in := &installer{bindir: bindir, root: c.String("root"), force: c.Bool("force"), path: filepath.SplitList(h.getenv("PATH")), proc: "/proc"}
			if in.inners, err = in.innerNames(c.Args().Slice()); err != nil {
				return err
			}
			var unread []error
			in.containerd, unread = containerdconf.Find(in.root)
			for _, err := range unread {
				h.warn("%v", err)
			}
			kata, err := h.kataSetUp(c, in)
			if err != nil {
				return err
			}
			if !c.Bool("uninstall") {
				return h.install(in, kata, c.String("shim"), c.Bool("dry-run"), c.Bool("json"))
			}
			return h.uninstall(in, kata, c.Bool("dry-run"), c.Bool("json"))
		},
	}
}

// installJSON is what install prints for scripts.
type installJSON struct {
	DryRun   bool                `json:"dry_run,omitempty"`
	Steps    []step              `json:"steps"`
	Runtimes []tracedRuntime     `json:"runtimes,omitempty"`
	Kata     []kataconfig.Change `json:"kata,omitempty"`
	// Notes are what the operator should know of Kata's tracing.
	Notes []string `json:"notes,omitempty"`
}

func (h *host) install(in *installer, kata *kataSetUp, shim string, dryRun, asJSON bool) error {
	var err error
	if in.tool, err = h.executable(); err != nil {
		return err
	}
	if in.shim, err = in.findShim(shim); err != nil {
		return err
	}
	if err := kata.find(in.inners, in.containerd); err != nil {
		return err
	}
	if len(in.inners) == 0 {
		if in.inners = kata.withInners(append(in.innersOnPath(), in.innersOfContainerd()...)); len(in.inners) == 0 {
			return nothingFound("no containerd-shim-* is on PATH (%s): name the inner shim, for instance: shimtrace install kata-qemu", h.getenv("PATH"))
		}
	}
	steps, err := in.plan()
	changes, errKata := kata.plan()
	if err := errors.Join(err, errKata); err != nil {
		return err
	}
	if err := h.apply(steps, changes, dryRun, asJSON); err != nil {
		return err
	}
	var runtimes []tracedRuntime
	for _, inner := range in.inners {
		runtimes = append(runtimes, h.runtimes(in, inner, kata)...)
	}
	if asJSON {
		return json.NewEncoder(h.stdout).Encode(installJSON{dryRun, steps, runtimes, changes, kata.notes})
	}
	if err := writeSnippets(h.stdout, runtimes); err != nil {
		return err
	}
	return kata.write(h.stdout, changes)
}

func (h *host) uninstall(in *installer, kata *kataSetUp, dryRun, asJSON bool) error {
	var steps []step
	var err error
	if !kata.on {
		steps, err = in.planUninstall()
	}
	changes, errKata := kata.planRemoval(in.inners, in.containerd)
	if err := errors.Join(err, errKata); err != nil {
		return err
	}
	switch {
	case len(steps)+len(changes) > 0:
	case kata.on:
		return nothingFound("no drop-in of shimtrace is beside Kata's configurations in %s; --kata-config names one", kata.places())
	default:
		return nothingFound("nothing of shimtrace is installed in %s; --bindir names another directory", in.bindir)
	}
	if err := h.apply(steps, changes, dryRun, asJSON); err != nil {
		return err
	}
	if asJSON {
		return json.NewEncoder(h.stdout).Encode(installJSON{DryRun: dryRun, Steps: steps, Kata: changes})
	}
	if len(steps) == 0 {
		return nil
	}
	_, err = fmt.Fprintln(h.stdout, "\nTake the traced runtimes out of containerd's configuration, too.")
	return err
}

// apply does the steps and then Kata's changes, or not, and prints each.
func (h *host) apply(steps []step, changes []kataconfig.Change, dryRun, quiet bool) error {
	one := func(do func() error, text string) error {
		if !dryRun {
			if err := do(); err != nil {
				return err
			}
		}
		if quiet {
			return nil
		}
		if dryRun {
			text = "would " + text
		}
		_, err := fmt.Fprintln(h.stdout, text)
		return err
	}
	for _, s := range steps {
		if err := one(s.do, s.String()); err != nil {
			return err
		}
	}
	for _, c := range changes {
		if c.Action == kataconfig.ByHand {
			continue
		}
		if err := one(c.Do, fmt.Sprintf("%-6s %s", c.Action, c.Path)); err != nil {
			return err
		}
	}
	return nil
}
