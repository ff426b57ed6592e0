// Package containerdconf reads the runtimes of the CRI plugin from containerd's
// configuration (find.go, runtime.go), renders sections in the format of that file's
// version (render.go), and writes them as a block that it can remove again, whoever
// else writes to the file (block.go, change.go). "shimtrace install" calls it.
package containerdconf

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

// A Config is one containerd's configuration.
type Config struct {
	// File is the file that containerd reads, Edit the file to add sections to: a
	// drop-in if File imports a directory, a template if a distribution generates File
	// from one, else File.
	File string
	Edit string
	// Version is the version of File's format: containerd 1.x writes 2, containerd 2.x
	// 3 or 4. A daemon of any version reads sections in the format that the file
	// declares.
	Version int
	// Files are File and what it imports: those that were read.
	Files []string
	// Address is the socket at which containerd serves.
	Address string
	// Units are the systemd units of which one runs this containerd.
	Units []string
	// ByHand: Edit is generated from elsewhere, so only a person can change it.
	ByHand bool
	// Runtimes are the CRI handlers, by name.
	Runtimes []Runtime
	// Misplaced are sections of handlers that have no effect in a file of that version.
	Misplaced []Misplaced
}

// Misplaced is a handler's section under a name of the CRI plugin that containerd does
// not read in files of that version.
type Misplaced struct {
	Handler, Plugin, Instead string
}

// A location is where a distribution keeps containerd's configuration, below the root.
type location struct {
	file string
	edit string // empty: file itself, or what it imports
	v3   string // replaces edit from version 3 on
	// socket is where this containerd serves unless file says otherwise, units the
	// systemd units of which one runs it.
	socket string
	units  []string
	byHand bool
}

// locations are those of kata-deploy 4.1
// (tools/packaging/kata-deploy/binary/src/config.rs), and of Talos, whose machine
// configuration writes /etc/cri/conf.d.
var locations = []location{
	{file: Default, socket: "/run/containerd/containerd.sock", units: []string{"containerd.service"}},
	{
		file: rancher + "k3s/agent/etc/containerd/config.toml", edit: rancher + "k3s/agent/etc/containerd/config.toml.tmpl", v3: rancher + "k3s/agent/etc/containerd/config-v3.toml.tmpl",
		socket: "/run/k3s/containerd/containerd.sock", units: []string{"k3s.service", "k3s-agent.service"},
	},
	{
		file: rancher + "rke2/agent/etc/containerd/config.toml", edit: rancher + "rke2/agent/etc/containerd/config.toml.tmpl", v3: rancher + "rke2/agent/etc/containerd/config-v3.toml.tmpl",
		socket: "/run/k3s/containerd/containerd.sock", units: []string{"rke2-server.service", "rke2-agent.service"},
	},
	{file: "etc/k0s/containerd.toml", edit: "etc/k0s/containerd.d/" + dropIn, socket: "/run/k0s/containerd.sock", units: []string{"k0scontroller.service", "k0sworker.service"}},
	{file: "var/snap/microk8s/current/args/containerd-template.toml", socket: "/var/snap/microk8s/common/run/containerd.sock", units: []string{"snap.microk8s.daemon-containerd.service"}},
	// Talos generates it from the machine's configuration.
	{file: "etc/cri/containerd.toml", edit: "etc/cri/conf.d/20-customization.part", byHand: true},
}

const (
	// Default is where containerd looks for its configuration, below the root.
	Default = "etc/containerd/config.toml"

	rancher = "var/lib/rancher/"
	dropIn  = "80-shimtrace.toml"
)

// maxImports bounds the files that one configuration may import.
const maxImports = 200

// Find returns the configurations at the known locations below root, and an error for each
// that it could not read.
func Find(root string) (configs []Config, unread []error) {
	for _, p := range locations {
		c, err := open(root, p)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			unread = append(unread, err)
		default:
			configs = append(configs, c)
		}
	}
	return configs, unread
}

func open(root string, p location) (Config, error) {
	path := filepath.Join(root, p.file)
	tree, files, imports, err := read(root, path)
	if err != nil {
		return Config{}, fmt.Errorf("containerd's configuration: %w", err)
	}
	c := Config{File: "/" + p.file, Version: 1, Units: p.units, ByHand: p.byHand}
	for _, f := range files {
		c.Files = append(c.Files, "/"+strings.TrimPrefix(strings.TrimPrefix(f, root), "/"))
	}
	if c.Address, _ = tree.Get("grpc", "address").(string); c.Address == "" {
		c.Address = p.socket
	}
	if v, ok := tree["version"].(int64); ok {
		c.Version = int(v)
	}
	c.Edit = c.File
	switch {
	case imports != "":
		c.Edit = filepath.Join(imports, dropIn)
	case p.v3 != "" && c.Version >= 3:
		c.Edit = "/" + p.v3
	case p.edit != "":
		c.Edit = "/" + p.edit
	}
	c.Runtimes = runtimes(tree, c.Version)
	c.Misplaced = misplaced(tree, c.Version)
	return c, nil
}

// Open returns the configuration in a file that containerd was told to read, a path for
// when root is "/".
func Open(root, file string) (Config, error) {
	for _, p := range locations {
		if "/"+p.file == filepath.Clean(file) {
			return open(root, p)
		}
	}
	return open(root, location{file: strings.TrimPrefix(filepath.Clean(file), "/")})
}

// read returns a file merged with its imports, all these files, and the first directory
// from which it imports every TOML file, as a path for when root is "/".
func read(root, path string) (tree tomltree.Tree, seen []string, dropIns string, err error) {
	if tree, err = tomltree.Read(path); err != nil {
		return nil, nil, "", err
	}
	seen = []string{path}
	queue := imports(root, path, tree)
	for _, pattern := range queue {
		if dir, file := filepath.Split(pattern); dropIns == "" && file == "*.toml" {
			dropIns = "/" + strings.TrimPrefix(strings.TrimPrefix(dir, root), "/")
		}
	}
	for i := 0; i < len(queue) && len(seen) <= maxImports; i++ {
		files, _ := filepath.Glob(queue[i])
		for _, f := range files {
			if slices.Contains(seen, f) {
				continue
			}
			seen = append(seen, f)
			over, err := tomltree.Read(f)
			if err != nil {
				return nil, nil, "", err
			}
			queue = append(queue, imports(root, f, over)...)
			delete(over, "version") // each file's sections follow its own version
			tree.Merge(over)
		}
	}
	return tree, seen, dropIns, nil
}

// imports returns the patterns of the files that a file imports, below root.
func imports(root, path string, tree tomltree.Tree) (patterns []string) {
	list, _ := tree["imports"].([]any)
	for _, v := range list {
		p, ok := v.(string)
		switch {
		case !ok || p == "":
		case filepath.IsAbs(p):
			patterns = append(patterns, filepath.Join(root, p))
		default:
			patterns = append(patterns, filepath.Join(filepath.Dir(path), p))
		}
	}
	return patterns
}

// New returns the configuration of a containerd that has none, in the format of that
// version.
func New(version int) Config {
	return Config{File: "/" + Default, Edit: "/" + Default, Version: version, Address: locations[0].socket, Units: locations[0].units}
}

// Exists reports whether Edit exists below root.
func (c Config) Exists(root string) bool {
	_, err := os.Stat(filepath.Join(root, c.Edit))
	return err == nil
}
