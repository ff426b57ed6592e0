package install

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/console"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// Names of the three programs.
const (
	shimName  = shimname.Program
	relayName = shimname.RelayProgram // which the shim finds beside itself
	toolName  = "shimtrace"
)

// installer plans an installation. It changes nothing; steps do.
type installer struct {
	opts       Options
	out        io.Writer
	shim       string // the one found, links resolved
	inners     []shimname.Name
	containerd []containerdconf.Config
	version    *string  // containerd's, once it is known
	path       []string // where inner shims are looked for
	proc       string   // the proc file system
}

// systemDirs belong to a package manager: programs there are not copied, and links
// elsewhere point to them.
var systemDirs = []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin"}

// innerNames parses the command line's names: the name of a shim's file,
// "containerd-shim-runsc-v1", or its middle, "runsc", for that shim on PATH, or version
// 2 if there is none.
func (in *installer) innerNames(args []string) ([]shimname.Name, error) {
	var names []shimname.Name
	for _, a := range args {
		n, ok := shimname.Parse(a)
		if !ok {
			if n, ok = in.innerOf(a); !ok {
				return nil, console.UsageError("%q is not the name of an inner shim: write \"runc\" for containerd-shim-runc-v2, or the whole", a)
			}
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// innerOf returns the inner shim with the middle in its name, in the latest version on
// PATH.
func (in *installer) innerOf(middle string) (shimname.Name, bool) {
	n, ok := shimname.Parse("containerd-shim-" + middle + "-v2")
	if !ok || n.Inner != middle || strings.HasPrefix(middle, "containerd-shim-") {
		return n, false
	}
	found := in.innersOnPath()
	for i := len(found) - 1; i >= 0; i-- {
		if found[i].Inner == middle {
			return found[i], true
		}
	}
	return n, true
}

// innersOnPath returns the inner shims on PATH, sorted, without tracing shims.
func (in *installer) innersOnPath() []shimname.Name {
	var names []shimname.Name
	for _, dir := range in.path {
		files, _ := filepath.Glob(filepath.Join(in.below(dir), "containerd-shim-*"))
		for _, f := range files {
			if n, ok := shimname.Parse(f); ok && programs.Executable(f) && !superseded(n) {
				names = append(names, n)
			}
		}
	}
	slices.SortFunc(names, compareNames)
	return slices.Compact(names)
}

// superseded reports whether n is a shim that its own project has replaced: runc's
// first one, which containerd up to 1.7 still ships, runs no CRI pods.
func superseded(n shimname.Name) bool {
	return n == shimname.Name{Inner: shimname.Runc.Inner, Version: "v1"}
}

func compareNames(a, b shimname.Name) int {
	return cmp.Or(cmp.Compare(a.Inner, b.Inner), cmp.Compare(a.Version, b.Version))
}

// links returns the names under which n is wrapped.
func links(n shimname.Name) []string {
	if n == shimname.Runc {
		return []string{n.Link(), shimname.RuncWithOptions.Link()}
	}
	return []string{n.Link()}
}

// lookPath returns the program of that name on the root's PATH.
func (in *installer) lookPath(name string) string {
	return programs.Find(in.opts.Root, in.path, name)
}

// below returns the path of a file of the root.
func (in *installer) below(path string) string { return filepath.Join(in.opts.Root, path) }

// target returns the path of a file in the target directory.
func (in *installer) target(name string) string { return in.below(filepath.Join(in.opts.BinDir, name)) }

// findShim returns the tracing shim: the one named, else beside the tool, else on PATH.
func (in *installer) findShim() (string, error) {
	p := in.opts.Shim
	if p == "" {
		if p = filepath.Join(filepath.Dir(in.opts.Tool), shimName); !programs.Executable(p) {
			if p = in.lookPath(shimName); p != "" {
				p = in.below(p)
			}
		}
	}
	if p == "" {
		return "", fmt.Errorf("%s is neither beside %s nor on PATH: name it with --shim", shimName, in.opts.Tool)
	}
	file, err := filepath.Abs(p)
	if err == nil {
		file, err = filepath.EvalSymlinks(file)
	}
	if err != nil {
		return "", fmt.Errorf("the tracing shim %s: %w", p, err)
	}
	if !programs.Executable(file) || !programs.Ours(file) {
		return "", fmt.Errorf("%s is not shimtrace's %s", file, shimName)
	}
	if relay := filepath.Join(filepath.Dir(file), relayName); !programs.Executable(relay) || !programs.Ours(relay) {
		return "", fmt.Errorf("%s is not there, or not shimtrace's: the shim needs it beside itself", relay)
	}
	return file, nil
}

// plan returns the steps of an installation. It reports all obstacles together, before
// anything is changed.
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
	if s, ok := in.planDir(); ok {
		add(s, nil)
	}
	target := in.shim
	if !in.packaged(in.shim) {
		// The links point to the name beside them, so that the directory can move.
		target = shimName
		add(in.copyStep(filepath.Join(filepath.Dir(in.shim), relayName), relayName))
		add(in.copyStep(in.shim, shimName))
	}
	if !in.packaged(in.opts.Tool) {
		add(in.copyStep(in.opts.Tool, toolName))
	}
	for _, inner := range in.inners {
		for _, link := range links(inner) {
			add(in.linkStep(target, link))
		}
	}
	if s, ok, err := in.planConfig(); ok || err != nil {
		add(s, err)
	}
	return steps, errors.Join(errs...)
}

// packaged reports whether a package manager keeps this program on the root.
func (in *installer) packaged(program string) bool {
	return in.opts.Root == "/" && slices.Contains(systemDirs, filepath.Dir(program))
}

func (in *installer) copyStep(source, name string) (step, error) {
	s := step{Action: actionCopy, Path: in.target(name), Source: source}
	if same, err := sameFile(source, s.Path); err != nil || same {
		s.Action = actionKeep
		return s, err
	}
	return s, in.mayReplace(s.Path)
}

func (in *installer) linkStep(target, name string) (step, error) {
	s := step{Action: actionLink, Path: in.target(name), Source: target}
	if now, err := os.Readlink(s.Path); err == nil && now == target {
		s.Action = actionKeep
		return s, nil
	}
	return s, in.mayReplace(s.Path)
}

// mayReplace returns an error if path must not be replaced.
func (in *installer) mayReplace(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case in.opts.Force || ours(path):
		return nil
	}
	return fmt.Errorf("%s is there and not shimtrace's; --force replaces it", path)
}

// planUninstall returns the steps of an uninstallation: the links of the inners named,
// or everything. Programs in a package's directory stay.
func (in *installer) planUninstall(files []containerdconf.Change) ([]step, error) {
	var paths []string
	if len(in.inners) == 0 {
		found, _ := filepath.Glob(in.target("containerd-shim-*"))
		for _, p := range found {
			if _, ok := shimname.ParseLink(p); ok {
				paths = append(paths, p)
			}
		}
		if !slices.Contains(systemDirs, in.opts.BinDir) {
			paths = append(paths, in.target(shimName), in.target(relayName), in.target(toolName))
		}
	}
	for _, inner := range in.inners {
		for _, link := range links(inner) {
			paths = append(paths, in.target(link))
		}
	}
	var steps []step
	for _, p := range paths {
		if ours(p) {
			steps = append(steps, step{Action: actionRemove, Path: p})
		}
	}
	if s, ok := in.planConfigRemoval(); ok {
		steps = append(steps, s)
	}
	if s, ok := in.planDirRemoval(); ok {
		steps = append(steps, s)
	}
	if len(steps)+len(files) == 0 || in.opts.Force {
		return steps, nil
	}
	if pids := in.relays(); len(pids) > 0 {
		return nil, fmt.Errorf("sandboxes that run need it to be stopped and deleted (relay processes %s): end them first, or use --force", strings.Join(pids, ", "))
	}
	if in.opts.Root != "/" {
		if sandboxes := in.relaysBelow(); len(sandboxes) > 0 {
			return nil, fmt.Errorf("sandboxes that run need it to be stopped and deleted (%s): end them first, or use --force", strings.Join(sandboxes, ", "))
		}
	}
	return steps, nil
}
