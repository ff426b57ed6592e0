package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/containerd"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/kataconfig"
	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// site is the host as the checks find it. Paths are as if the root were "/".
type site struct {
	Options
	// daemons are the containerds that run; path is where they find shims.
	daemons []containerd.Daemon
	path    []string
	// version is that of the containerd that runs, else of the one on PATH, and program
	// says where that is.
	version, program string
	// configs are containerd's configurations; unread says which could not be read.
	configs []containerdconf.Config
	unread  []error
	// kata are Kata's configurations; kataUnread says which could not be read.
	kata       []kataconfig.Config
	kataUnread []error
	// config is shimtrace's common configuration, report what is wrong with it.
	config config.Config
	report config.Report
	links  []link
	// known are the relays, once they have been asked for.
	known []knownRelay
	asked bool
}

// link is one name under which containerd would find our shim.
type link struct {
	path  string
	inner shimname.Name
	// target is the program, links resolved; empty if the link leads nowhere. ours: it is our
	// shim.
	target string
	ours   bool
}

func newSite(o Options) *site {
	s := &site{Options: o}
	if s.live() {
		s.daemons = containerd.Find(o.Proc)
	}
	s.path = filepath.SplitList(o.Getenv("PATH"))
	if len(s.daemons) > 0 && len(s.daemons[0].Path) > 0 {
		s.path = s.daemons[0].Path
	}
	s.findVersion()
	s.findConfigs()
	s.kata, s.kataUnread = kataconfig.Find(o.Root)
	s.config, s.report = config.Load("", s.getenv)
	s.findLinks()
	return s
}

// live reports whether processes and programs of the host can be asked.
func (s *site) live() bool { return s.Root == "/" }

// in returns the path of a file below the root.
func (s *site) in(path string) string { return filepath.Join(s.Root, path) }

// getenv is the environment, with the configuration below the root.
func (s *site) getenv(name string) string {
	v := s.Getenv(name)
	if name != config.PathEnv || s.live() {
		return v
	}
	path := s.in(cmp.Or(v, config.DefaultPath))
	if _, err := os.Stat(path); err != nil && v == "" {
		return os.DevNull // not this machine's own
	}
	return path
}

// findVersion finds containerd's version.
func (s *site) findVersion() {
	if len(s.daemons) > 0 {
		d := s.daemons[0]
		s.version, s.program = containerd.Version(d.Program), fmt.Sprintf("%s (process %d)", d.Program, d.PID)
		return
	}
	if s.program = s.lookPath("containerd"); s.program != "" && s.live() {
		s.version = containerd.Version(s.program)
	}
}

// configOf is the configuration file that a containerd reads.
func configOf(d containerd.Daemon) string { return cmp.Or(d.Config, "/"+containerdconf.Default) }

// findConfigs finds the configurations at the known locations, and those that running
// containerds were told to read.
func (s *site) findConfigs() {
	s.configs, s.unread = containerdconf.Find(s.Root)
	for _, d := range s.daemons {
		known := func(c containerdconf.Config) bool { return c.File == d.Config }
		if d.Config == "" || slices.ContainsFunc(s.configs, known) {
			continue
		}
		c, err := containerdconf.Open(s.Root, d.Config)
		switch {
		case err == nil:
			s.configs = append(s.configs, c)
		case !errors.Is(err, fs.ErrNotExist):
			s.unread = append(s.unread, err)
		}
	}
}

// findLinks finds the files with the name of one of our links: on containerd's PATH, in the
// usual directories, and beside this tool.
func (s *site) findLinks() {
	dirs := append(slices.Clone(s.path), "/usr/local/bin", "/usr/bin")
	if s.live() && s.Tool != "" {
		dirs = append(dirs, filepath.Dir(s.Tool))
	}
	ours := make(map[string]bool)
	var seen []string
	for _, dir := range dirs {
		real, err := filepath.EvalSymlinks(s.in(dir)) // /bin is /usr/bin
		if err != nil || slices.Contains(seen, real) {
			continue
		}
		seen = append(seen, real)
		found, _ := filepath.Glob(filepath.Join(s.in(dir), "containerd-shim-*"))
		for _, p := range found {
			n, ok := shimname.ParseLink(p)
			if !ok {
				continue
			}
			target, _ := filepath.EvalSymlinks(p)
			is, known := ours[target]
			if !known {
				is = programs.Ours(target)
				ours[target] = is
			}
			s.links = append(s.links, link{path: filepath.Join(dir, filepath.Base(p)), inner: n, target: target, ours: is})
		}
	}
}

// lookPath returns the program of that name that containerd finds, empty if there is
// none.
func (s *site) lookPath(name string) string {
	return programs.Find(s.Root, s.path, name)
}
