package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Names of the two programs, and what the links are called around the inner's.
const (
	shimName   = "containerd-shim-traced-v2"
	toolName   = "shimtrace"
	linkPrefix = "containerd-shim-"
	linkSuffix = "-traced-v2"
)

// installer decides what an installation consists of. It changes nothing; steps do.
type installer struct {
	bindir     string // absolute
	shim, tool string // where the programs are now, links resolved
	inners     []string
	force      bool
	path       []string // where inner shims are looked for
	proc       string   // the proc file system
}

// systemDirs belong to a package manager: programs there stay there, and links
// elsewhere lead to them.
var systemDirs = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"}

// innerPattern is what containerd can make a shim's name of.
var innerPattern = regexp.MustCompile(`^[a-z0-9]+([-_][a-z0-9]+)*$`)

// innerNames checks and completes what the command line names: "runc", or the
// whole "containerd-shim-runc-v2".
func innerNames(args []string) ([]string, error) {
	var names []string
	for _, a := range args {
		name := strings.TrimSuffix(strings.TrimPrefix(a, linkPrefix), "-v2")
		if !innerPattern.MatchString(name) || name == "traced" || strings.HasSuffix(name, "-traced") {
			return nil, usageError("%q is not the name of an inner shim: write \"runc\" for containerd-shim-runc-v2", a)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// innersOnPath returns the inner shims on the path, sorted, without our own.
func (in *installer) innersOnPath() []string {
	var names []string
	for _, dir := range in.path {
		files, _ := filepath.Glob(filepath.Join(dir, linkPrefix+"*-v2"))
		for _, f := range files {
			name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), linkPrefix), "-v2")
			if name == "traced" || strings.HasSuffix(name, "-traced") || !innerPattern.MatchString(name) || !executable(f) {
				continue
			}
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (in *installer) lookPath(name string) string {
	for _, dir := range in.path {
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	return ""
}

// findShim returns the tracing shim: the one named, else the one beside the tool,
// else the one on the path.
func (in *installer) findShim(named string) (string, error) {
	p := named
	if p == "" {
		if p = filepath.Join(filepath.Dir(in.tool), shimName); !executable(p) {
			p = in.lookPath(shimName)
		}
	}
	if p == "" {
		return "", fmt.Errorf("%s is neither beside %s nor on PATH: name it with --shim", shimName, in.tool)
	}
	file, err := filepath.Abs(p)
	if err == nil {
		file, err = filepath.EvalSymlinks(file)
	}
	if err != nil {
		return "", fmt.Errorf("the tracing shim %s: %w", p, err)
	}
	if !executable(file) || !ourProgram(file) {
		return "", fmt.Errorf("%s is not shimtrace's %s", file, shimName)
	}
	return file, nil
}

// plan returns the steps of an installation. All that stands in the way is
// reported at once, before anything is changed.
func (in *installer) plan() ([]step, error) {
	var steps []step
	var errs []error
	add := func(s step, err error) {
		if err != nil {
			errs = append(errs, err)
			return
		}
		steps = append(steps, s)
	}
	target := in.shim
	if !slices.Contains(systemDirs, filepath.Dir(in.shim)) {
		// The links lead to the name beside them, so that the directory can move.
		target = shimName
		add(in.copyStep(in.shim, shimName))
	}
	if !slices.Contains(systemDirs, filepath.Dir(in.tool)) {
		add(in.copyStep(in.tool, toolName))
	}
	for _, inner := range in.inners {
		add(in.linkStep(target, linkPrefix+inner+linkSuffix))
	}
	return steps, errors.Join(errs...)
}

func (in *installer) copyStep(source, name string) (step, error) {
	s := step{Action: actionCopy, Path: filepath.Join(in.bindir, name), Source: source}
	if same, err := sameFile(source, s.Path); err != nil || same {
		s.Action = actionKeep
		return s, err
	}
	return s, in.mayReplace(s.Path)
}

func (in *installer) linkStep(target, name string) (step, error) {
	s := step{Action: actionLink, Path: filepath.Join(in.bindir, name), Source: target}
	if now, err := os.Readlink(s.Path); err == nil && now == target {
		s.Action = actionKeep
		return s, nil
	}
	return s, in.mayReplace(s.Path)
}

// mayReplace reports what forbids to put something in the place of path.
func (in *installer) mayReplace(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case in.force || ours(path):
		return nil
	}
	return fmt.Errorf("%s is there and not shimtrace's; --force replaces it", path)
}

// planUninstall returns the steps that take an installation back: the links of
// the inners named, or everything. Programs in a package's directory stay.
func (in *installer) planUninstall() ([]step, error) {
	var paths []string
	if len(in.inners) == 0 {
		paths, _ = filepath.Glob(filepath.Join(in.bindir, linkPrefix+"*"+linkSuffix))
		if !slices.Contains(systemDirs, in.bindir) {
			paths = append(paths, filepath.Join(in.bindir, shimName), filepath.Join(in.bindir, toolName))
		}
	}
	for _, inner := range in.inners {
		paths = append(paths, filepath.Join(in.bindir, linkPrefix+inner+linkSuffix))
	}
	var steps []step
	for _, p := range paths {
		if ours(p) {
			steps = append(steps, step{Action: actionRemove, Path: p})
		}
	}
	if len(steps) == 0 || in.force {
		return steps, nil
	}
	if pids := in.relays(); len(pids) > 0 {
		return nil, fmt.Errorf("sandboxes that run need it to be stopped and deleted (relay processes %s): end them first, or use --force", strings.Join(pids, ", "))
	}
	return steps, nil
}

// relays returns the processes that run the installed shim.
func (in *installer) relays() []string {
	shim, err := filepath.EvalSymlinks(filepath.Join(in.bindir, shimName))
	if err != nil {
		return nil
	}
	var pids []string
	exes, _ := filepath.Glob(filepath.Join(in.proc, "[0-9]*", "exe"))
	for _, exe := range exes {
		// A program that was replaced since is called "… (deleted)".
		if p, err := os.Readlink(exe); err == nil && strings.TrimSuffix(p, " (deleted)") == shim {
			pids = append(pids, filepath.Base(filepath.Dir(exe)))
		}
	}
	return pids
}

func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil && strings.ContainsRune(path, filepath.Separator)
}
