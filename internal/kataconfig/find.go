// Package kataconfig turns tracing in Kata Containers on by drop-in files, and off
// again, without touching files that are not shimtrace's.
//
// Both of Kata's runtimes read their configuration file and then every file in config.d
// beside it (beside the file itself, if its name is a link), in the order of the names,
// each overriding the ones before: the Go runtime since Kata 2.5
// (src/runtime/pkg/katautils/config.go), runtime-rs since 3.0
// (src/libs/kata-types/src/config/drop_in.rs). They read files of any name there, and a
// file that cannot be parsed keeps containers from starting. So a drop-in appears there
// whole or not at all, and no other file of shimtrace does.
//
// "shimtrace install --kata" calls it. It runs no program but a shim's --version.
package kataconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// Config is one configuration file of Kata.
type Config struct {
	// File is the file itself, links resolved: config.d is beside it.
	File string `json:"file"`
	// Names are the paths that led to it, for instance configuration.toml.
	Names []string `json:"names"`
	// Runtime is "go" or "rust".
	Runtime string `json:"runtime"`
	// Version is Kata's version, empty if unknown.
	Version string `json:"version,omitempty"`
	// Shim is the program that the file was installed with, empty if there is none.
	Shim string `json:"shim,omitempty"`

	agents []string // the agents that it configures, usually "kata"
}

// defaults is where Kata's installations keep their configuration, below a prefix.
const defaults = "share/defaults/kata-containers"

// locations are patterns, below the root, of the directories with configurations. Other
// installations are known only from containerd's configuration.
var locations = []string{
	// The defaults of Kata's runtimes.
	"etc/kata-containers",
	"usr/" + defaults,
	"usr/local/" + defaults,
	// kata-deploy's, which may have several installations at /opt/kata-<suffix>, and
	// the confidential containers' operator's.
	"opt/kata*/" + defaults,
	"opt/confidential-containers/" + defaults,
	// Distributions': Fedora's package (and so OpenShift's), Talos' system extension,
	// the snap, and NixOS' profile of the running system.
	"usr/share/kata-containers/defaults",
	"usr/local/share/kata-containers",
	"snap/kata-containers/current/usr/" + defaults,
	"run/current-system/sw/" + defaults,
}

// below are the subdirectories: the runtime in Rust has one of its own, and kata-deploy
// creates one for each runtime class.
var below = []string{".", "runtimes/*", "custom-runtimes/*", "runtime-rs", "runtime-rs/runtimes/*"}

// Locations returns where Find looks, for messages.
func Locations(root string) []string {
	var paths []string
	for _, p := range locations {
		paths = append(paths, filepath.Join(root, p))
	}
	return paths
}

// directories returns the existing directories that may have configurations, sorted.
func directories(root string) []string {
	var dirs []string
	for _, location := range locations {
		for _, b := range below {
			found, _ := filepath.Glob(filepath.Join(root, location, b))
			dirs = append(dirs, found...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// Find returns Kata's configurations at the known locations below root ("/" is this host),
// each file once, and an error for each that it could not read: links that lead
// nowhere, backups that are no TOML.
func Find(root string) (configs []Config, unread []error) {
	var names []string
	for _, dir := range directories(root) {
		files, _ := filepath.Glob(filepath.Join(dir, "configuration*.toml"))
		names = append(names, files...)
	}
	return open(root, names)
}

// Open reads the named configurations, each file once. An unreadable one is an error.
func Open(root string, names ...string) ([]Config, error) {
	configs, errs := open(root, names)
	return configs, errors.Join(errs...)
}

func open(root string, names []string) (configs []Config, errs []error) {
	for _, name := range names {
		file, err := resolve(root, name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if i := slices.IndexFunc(configs, func(c Config) bool { return c.File == file }); i >= 0 {
			configs[i].Names = append(configs[i].Names, name)
			continue
		}
		c, err := read(file)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.Names = []string{name}
		c.locate(root)
		configs = append(configs, c)
	}
	return configs, errs
}

// resolve follows links as they would lead if root were "/".
func resolve(root, name string) (string, error) {
	base, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	for range 40 {
		target, err := os.Readlink(name)
		if err != nil || !filepath.IsAbs(target) {
			break
		}
		name = filepath.Join(base, target)
	}
	file, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("a configuration of Kata: %w", err)
	}
	if file, err = filepath.Abs(file); err != nil {
		return "", err
	}
	if !strings.HasPrefix(file, strings.TrimSuffix(base, "/")+"/") {
		return "", fmt.Errorf("%s leads out of %s, to %s", name, root, file)
	}
	return file, nil
}

// read reads the parts of a configuration that a drop-in depends on.
func read(file string) (Config, error) {
	t, err := tomltree.Read(file)
	if err != nil {
		return Config{}, err
	}
	c := Config{File: file, Runtime: "go"}
	// Only runtime-rs has these keys, and it requires them.
	if name, ok := t.Get("runtime", "agent_name").(string); ok {
		c.Runtime, c.agents = "rust", []string{name}
		return c, nil
	}
	// The Go runtime accepts any name.
	for name := range t.Table("agent") {
		c.agents = append(c.agents, name)
	}
	if slices.Sort(c.agents); len(c.agents) == 0 {
		c.agents = []string{"kata"}
	}
	return c, nil
}

// locate finds the program and the version of the file's installation.
func (c *Config) locate(root string) {
	prefix, rest, ok := strings.Cut(c.File, "/"+defaults+"/")
	if !ok {
		return
	}
	shim := filepath.Join(prefix, "bin", "containerd-shim-kata-v2")
	if strings.HasPrefix(rest, "runtime-rs/") {
		shim = filepath.Join(prefix, "runtime-rs", "bin", "containerd-shim-kata-v2")
	}
	if st, err := os.Stat(shim); err == nil && st.Mode().IsRegular() {
		c.Shim = shim
	}
	c.Version = versionOf(prefix, c.Shim, root)
}

// Handlers returns the names of the runtimes that read the configuration, by Kata's
// convention: kata reads configuration.toml, kata-qemu configuration-qemu.toml, and
// kata-qemu-dev the one in kata-deploy's installation with the suffix "dev". A custom
// runtime of kata-deploy has the name of its directory.
func (c Config) Handlers() []string {
	var handlers []string
	for _, name := range c.Names {
		h := "kata" + strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "configuration"), ".toml") + c.suffix()
		if dir := filepath.Dir(name); filepath.Base(filepath.Dir(dir)) == "custom-runtimes" {
			h = filepath.Base(dir)
		}
		if !slices.Contains(handlers, h) {
			handlers = append(handlers, h)
		}
	}
	return handlers
}

// suffix returns the suffix that kata-deploy appends to the handlers' names of a
// further installation (MULTI_INSTALL_SUFFIX), with its hyphen.
func (c Config) suffix() string {
	prefix, _, _ := strings.Cut(c.File, "/"+defaults+"/")
	if suffix, ok := strings.CutPrefix(filepath.Base(prefix), "kata-"); ok && filepath.Base(filepath.Dir(prefix)) == "opt" {
		return "-" + suffix
	}
	return ""
}

// Deployed reports whether kata-deploy created a directory for the configuration, as it
// does for the runtimes that it adds to containerd.
func (c Config) Deployed() bool {
	class := filepath.Base(filepath.Dir(filepath.Dir(c.File)))
	return class == "runtimes" || class == "custom-runtimes"
}

// FindDropIns returns shimtrace's drop-ins at the known locations below root, including
// those whose configurations are gone.
func FindDropIns(root string) []string {
	var paths []string
	for _, dir := range directories(root) {
		path := filepath.Join(dir, dirName, fileName)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			paths = append(paths, path)
		}
	}
	return paths
}
