package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/kataconfig"
)

// Options say what to install, and where.
type Options struct {
	// Inners are the inner shims, by their file names or the middle of these; none:
	// all.
	Inners []string
	// BinDir is the absolute target directory. Shim is the tracing shim; empty: look
	// beside Tool, which is this program with its links resolved, or on PATH.
	BinDir, Shim, Tool string
	// Config is a configuration of shimtrace to put where shims read it; empty: none.
	Config string
	// Root is the directory below which containerd's and Kata's configurations are
	// looked for.
	Root string
	// Kata says which of Kata's tracing to turn on; nil: none.
	Kata *Kata
	// Containerd says what to do with containerd; nil: only what to add to its
	// configuration is printed.
	Containerd *Containerd
	// Uninstall reverts an installation. Force replaces and removes files that are not
	// shimtrace's. DryRun changes nothing. JSON prints an object for scripts.
	Uninstall, Force, DryRun, JSON bool
	// Getenv reads the environment. Warn receives warnings for the operator.
	Getenv func(string) string
	Warn   func(format string, args ...any)
	// Step is told what is waited for.
	Step func(what string)
}

// Run installs or uninstalls, and prints what it does.
func Run(ctx context.Context, o Options, out io.Writer) error {
	in := &installer{opts: o, out: out, path: filepath.SplitList(o.Getenv("PATH")), proc: "/proc"}
	var err error
	if in.inners, err = in.innerNames(o.Inners); err != nil {
		return err
	}
	if err := in.findContainerd(); err != nil {
		return err
	}
	kata, err := in.kataSetUp()
	if err != nil {
		return err
	}
	if o.Uninstall {
		return in.uninstall(ctx, kata)
	}
	return in.install(ctx, kata)
}

// installJSON is the output for scripts.
type installJSON struct {
	DryRun   bool                `json:"dry_run,omitempty"`
	Steps    []step              `json:"steps"`
	Runtimes []tracedRuntime     `json:"runtimes,omitempty"`
	Kata     []kataconfig.Change `json:"kata,omitempty"`
	// Containerd are the changes of its configuration; Restarted says that it has loaded
	// them.
	Containerd []containerdconf.Change `json:"containerd,omitempty"`
	Restarted  bool                    `json:"restarted,omitempty"`
	// Notes are warnings about Kata's tracing.
	Notes []string `json:"notes,omitempty"`
}

func (in *installer) install(ctx context.Context, kata *kataSetUp) error {
	var err error
	if in.shim, err = in.findShim(); err != nil {
		return err
	}
	if err := kata.find(in.inners, in.containerd); err != nil {
		return err
	}
	if len(in.inners) == 0 {
		if in.inners = kata.withInners(append(in.innersOnPath(), in.innersOfContainerd()...)); len(in.inners) == 0 {
			return console.NothingFound("no containerd-shim-* is on PATH (%s): name the inner shim, for instance: shimtrace install kata-qemu", in.opts.Getenv("PATH"))
		}
	}
	steps, err := in.plan()
	changes, errKata := kata.plan()
	var runtimes []tracedRuntime
	for _, inner := range in.inners {
		runtimes = append(runtimes, in.runtimes(inner, kata)...)
	}
	files, errFiles := in.planFiles(runtimes)
	if err := errors.Join(err, errKata, errFiles); err != nil {
		return err
	}
	if err := in.apply(steps, changes, files); err != nil {
		return err
	}
	restarted, err := in.restart(ctx, files)
	if err != nil {
		return err
	}
	if in.opts.JSON {
		return json.NewEncoder(in.out).Encode(installJSON{in.opts.DryRun, steps, runtimes, changes, files, restarted, kata.notes})
	}
	if err := in.writeSnippets(runtimes, restarted); err != nil {
		return err
	}
	return kata.write(in.out, changes)
}

func (in *installer) uninstall(ctx context.Context, kata *kataSetUp) error {
	var steps []step
	var files []containerdconf.Change
	var err error
	if !kata.on {
		files, err = in.planFilesRemoval()
		if err == nil {
			steps, err = in.planUninstall(files)
		}
	}
	changes, errKata := kata.planRemoval(in.inners, in.containerd)
	if err := errors.Join(err, errKata); err != nil {
		return err
	}
	switch {
	case len(steps)+len(changes)+len(files) > 0:
	case kata.on:
		return console.NothingFound("no drop-in of shimtrace is beside Kata's configurations in %s; --kata-config names one", kata.locations())
	default:
		return console.NothingFound("nothing of shimtrace is installed in %s; --bindir names another directory", in.opts.BinDir)
	}
	// First the handlers: containerd must not have one whose shim is gone.
	if err := in.apply(nil, nil, files); err != nil {
		return err
	}
	restarted, err := in.restart(ctx, files)
	if err == nil {
		err = in.apply(steps, changes, nil)
	}
	if err != nil {
		return err
	}
	if in.opts.JSON {
		return json.NewEncoder(in.out).Encode(installJSON{DryRun: in.opts.DryRun, Steps: steps, Kata: changes, Containerd: files, Restarted: restarted})
	}
	switch {
	case len(steps) == 0 || restarted:
	case len(files) > 0:
		_, err = fmt.Fprintln(in.out, "\nRestart containerd: it has the traced handlers in memory until then.")
	default:
		_, err = fmt.Fprintln(in.out, "\nTake the traced runtimes out of containerd's configuration, too, if you have put them there.")
	}
	return err
}

// apply makes the steps, Kata's changes and then containerd's, unless DryRun is set, and
// prints each.
func (in *installer) apply(steps []step, changes []kataconfig.Change, files []containerdconf.Change) error {
	one := func(do func() error, text string) error {
		if !in.opts.DryRun {
			if err := do(); err != nil {
				return err
			}
		}
		if in.opts.JSON {
			return nil
		}
		if in.opts.DryRun {
			text = "would " + text
		}
		_, err := fmt.Fprintln(in.out, text)
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
	for _, f := range files {
		text := fmt.Sprintf("%-6s %s", f.Action, f.Path)
		if in.opts.DryRun && f.Diff != "" {
			text += "\n\n" + f.Diff
		}
		if err := one(f.Do, text); err != nil {
			return err
		}
	}
	return nil
}
