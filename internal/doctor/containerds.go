package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/shimtrace/shimtrace/internal/containerd"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
)

// containerds looks at containerd's program, its process and its configuration's format.
func containerds(_ context.Context, s *site) (all []Finding) {
	for _, err := range s.unread {
		all = append(all, Finding{Level: Error, What: position(err), Do: "correct the file: containerd does not start with it"})
	}
	version, where := s.version, s.program
	switch {
	case where == "" && len(s.configs) == 0:
		all = append(all, Finding{Level: Error, What: "there is no containerd: neither a process, nor a program on PATH, nor a configuration", Do: "install containerd, or run this where it is; in an image, use --root"})
	case containerd.Before(version, containerd.Oldest):
		all = append(all, Finding{Level: Error, What: "containerd " + version + " is too old", Where: where, Do: "shimtrace works with " + containerd.Oldest + " and later"})
	case where != "":
		f := Finding{Level: OK, What: strings.TrimSpace("containerd " + version), Where: where}
		if len(s.daemons) == 0 && s.live() {
			f.Level, f.What, f.Do = Warning, f.What+" does not run", "start it: systemctl start containerd"
		}
		all = append(all, f)
	}
	for _, c := range s.configs {
		all = append(all, s.format(c)...)
	}
	return all
}

// format looks at one configuration's version, and whether containerd has read it.
func (s *site) format(c containerdconf.Config) (all []Finding) {
	switch {
	case c.Version >= 3 && containerd.Before(s.version, "2.0"):
		all = append(all, Finding{Level: Error, What: fmt.Sprintf("the file has version = %d, which containerd %s does not read", c.Version, s.version), Where: c.File, Do: "write it for version = 2, or update containerd to 2.x"})
	case c.Version < 2:
		all = append(all, Finding{Level: Error, What: fmt.Sprintf("the file has version = %d, under which containerd does not know its plugins by their full names", c.Version), Where: c.File, Do: "put version = 2 (containerd 1.x) or version = 3 (2.x) at its top; containerd config default prints such a file"})
	default:
		all = append(all, Finding{Level: OK, What: fmt.Sprintf("its configuration has version %d and %d handlers", c.Version, len(c.Runtimes)), Where: c.File})
	}
	for _, m := range c.Misplaced {
		all = append(all, Finding{Level: Error, What: fmt.Sprintf("handler %s is below plugin %q, which containerd does not read in a file of version %d", m.Handler, m.Plugin, c.Version), Where: c.File, Do: fmt.Sprintf("write it below plugins.'%s'; shimtrace install does", m.Instead)})
	}
	for _, d := range s.daemons {
		if f, changed := s.changedSince(c, d); changed {
			all = append(all, Finding{Level: Warning, What: "the configuration was changed after containerd had started, and is not in use yet", Where: f, Do: "systemctl restart containerd: containers go on meanwhile"})
		}
	}
	return all
}

// changedSince returns a file of the configuration that is younger than the process that
// reads it.
func (s *site) changedSince(c containerdconf.Config, d containerd.Daemon) (file string, changed bool) {
	if d.Started.IsZero() || c.File != configOf(d) {
		return "", false
	}
	for _, f := range c.Files {
		if st, err := os.Stat(s.in(f)); err == nil && st.ModTime().After(d.Started.Add(time.Second)) {
			return f, true
		}
	}
	return "", false
}

// position adds line and column to an error of TOML.
func position(err error) string {
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Sprintf("%v (line %d, column %d)", err, line, column)
	}
	return err.Error()
}
