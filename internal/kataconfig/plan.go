package kataconfig

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// The actions on a drop-in.
const (
	write  = "write"
	keep   = "keep" // it is up to date
	remove = "remove"
	// ByHand: this version of Kata reads no drop-ins; the operator must write Lines.
	ByHand = "by hand"
)

// Change is the change of one drop-in, which affects all configurations beside it.
type Change struct {
	Action string `json:"action"`
	Path   string `json:"path"`
	// Configs are the configurations that the drop-in applies to, including those
	// beside a named one.
	Configs []Config `json:"configurations,omitempty"`
	// Lines turn the settings on.
	Lines string `json:"lines,omitempty"`
	// Notes are warnings for the operator.
	Notes []string `json:"notes,omitempty"`

	content []byte
	made    bool // the directory is created for the drop-in
}

// Plan returns the changes that turn the settings on for the configurations. It reports
// all obstacles together; force overrides the operator's own settings and changes to
// shimtrace's file.
func Plan(root string, configs []Config, s Settings, force bool) ([]Change, error) {
	var changes []Change
	var errs []error
	for _, dir := range directoriesOf(configs) {
		c, err := planDir(root, dir, configs, s, force)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		changes = append(changes, c)
	}
	return changes, errors.Join(errs...)
}

func directoriesOf(configs []Config) []string {
	var dirs []string
	for _, c := range configs {
		dirs = append(dirs, filepath.Dir(c.File))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func planDir(root, dir string, configs []Config, s Settings, force bool) (Change, error) {
	c := Change{Path: filepath.Join(dir, dirName, fileName)}
	var err error
	c.Configs, c.Notes = beside(root, dir, configs)
	agents := c.Configs[0].agents
	for _, other := range c.Configs {
		if !slices.Equal(other.agents, agents) {
			return c, fmt.Errorf("%s and %s share %s, but have agents of other names (%v, %v): one drop-in can't be right for both",
				c.Configs[0].File, other.File, filepath.Dir(c.Path), agents, other.agents)
		}
	}
	if c.Lines, err = s.lines(agents); err != nil {
		return c, err
	}
	if slices.ContainsFunc(c.Configs, func(c Config) bool { return !c.readsDropIns() }) {
		c.Action = ByHand
		return c, nil
	}
	now, err := inspect(c.Path)
	if err != nil {
		return c, err
	}
	if now.there && !force {
		if err := now.mayGo(c.Path, "replaces"); err != nil {
			return c, err
		}
	}
	c.made = now.made
	if !now.there {
		_, err := os.Stat(filepath.Dir(c.Path))
		c.made = os.IsNotExist(err)
	}
	c.content = render(c.Lines, c.made)
	if c.Action = write; string(now.content) == string(c.content) {
		c.Action = keep
	} else if err := writable(c.Path); err != nil {
		return c, err
	}
	return c, c.check(s, force)
}

// mayGo returns an error if the file must not be replaced or removed.
func (w written) mayGo(path, does string) error {
	switch {
	case !w.ours:
		return fmt.Errorf("%s is there and not shimtrace's; --force %s it", path, does)
	case w.changed:
		return fmt.Errorf("%s was changed since shimtrace wrote it: put your changes into a file of your own beside it; --force %s it", path, does)
	}
	return nil
}

// beside returns all configurations in the directory: those given, with all their
// names, and the others there, with notes on unreadable ones.
func beside(root, dir string, configs []Config) (here []Config, notes []string) {
	for _, c := range configs {
		if filepath.Dir(c.File) == dir {
			here = append(here, c)
		}
	}
	names, _ := filepath.Glob(filepath.Join(dir, "configuration*.toml"))
	for _, name := range names {
		file, err := resolve(root, name)
		if err != nil || filepath.Dir(file) != dir || slices.ContainsFunc(here, func(c Config) bool { return c.File == file }) {
			continue
		}
		others, err := Open(root, name)
		if err != nil {
			notes = append(notes, err.Error())
		}
		here = append(here, others...)
	}
	return here, notes
}

// check compares the configuration without and with the drop-in.
func (c *Change) check(s Settings, force bool) error {
	dir := filepath.Dir(c.Path)
	for _, config := range c.Configs {
		before, err := merged(config.File, dir, nil)
		if err != nil {
			return err
		}
		if on, _ := before.Get("runtime", "enable_tracing").(bool); on && s.Runtime && !force {
			endpoint, _ := before.Get("runtime", "jaeger_endpoint").(string)
			if endpoint != "" && !sameEndpoint(endpoint, s.Endpoint) {
				return fmt.Errorf("%s has the runtime's spans sent to %s already: --force sends them to shimtrace instead, --kata-runtime=false leaves that alone", config.File, endpoint)
			}
		}
		after, err := merged(config.File, dir, c.content)
		if err != nil {
			return err
		}
		if s.overruled(after, config.agents) {
			c.Notes = append(c.Notes, fmt.Sprintf("a drop-in after %s says otherwise for %s, and wins", fileName, config.File))
		}
	}
	return nil
}

// overruled reports whether something to be turned on is not on.
func (s Settings) overruled(t tomltree.Tree, agents []string) bool {
	if s.Agent {
		for _, a := range agents {
			if on, _ := t.Get("agent", a, "enable_tracing").(bool); !on {
				return true
			}
		}
	}
	on, _ := t.Get("runtime", "enable_tracing").(bool)
	return s.Runtime && (!on || t.Get("runtime", "jaeger_endpoint") != s.Endpoint)
}

// sameEndpoint reports whether two URLs mean the same address of this host.
func sameEndpoint(a, b string) bool {
	ua, errA := url.Parse(a)
	ub, errB := url.Parse(b)
	if errA != nil || errB != nil {
		return a == b
	}
	local := func(h string) bool {
		ip := net.ParseIP(h)
		return h == "localhost" || ip != nil && ip.IsLoopback()
	}
	return ua.Port() == ub.Port() && ua.Path == ub.Path && (ua.Hostname() == ub.Hostname() || local(ua.Hostname()) && local(ub.Hostname()))
}

// PlanRemoval returns the changes that remove the drop-ins beside the configurations
// and those at the paths. Missing ones need no change.
func PlanRemoval(configs []Config, paths []string, force bool) ([]Change, error) {
	for _, dir := range directoriesOf(configs) {
		paths = append(paths, filepath.Join(dir, dirName, fileName))
	}
	// Several paths may lead to one file.
	real := make(map[string]bool)
	var changes []Change
	var errs []error
	for _, path := range paths {
		file, err := filepath.EvalSymlinks(path)
		if err != nil || real[file] {
			continue
		}
		real[file] = true
		w, err := inspect(file)
		if err == nil && !force {
			err = w.mayGo(path, "removes")
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		changes = append(changes, Change{Action: remove, Path: path, made: w.made})
	}
	return changes, errors.Join(errs...)
}
