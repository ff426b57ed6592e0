package containerdconf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/atomicfile"
	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// The actions of a change.
const (
	Write  = "write"
	Keep   = "keep" // it is up to date
	Remove = "remove"
)

// Change is the change of one file of containerd's configuration.
type Change struct {
	Action string `json:"action"`
	Path   string `json:"path"`
	// Diff shows it, as diff -u would.
	Diff string `json:"diff,omitempty"`
	// Config is the configuration that it belongs to, Handlers what it adds.
	Config   Config    `json:"-"`
	Handlers []Runtime `json:"-"`

	before, after []byte // nil: the file is not there
	made          bool   // its directory is made, or removed, with it
}

// Plan returns the change that gives a configuration these handlers. It returns an error
// if the configuration has another handler of such a name, or if containerd could not
// read the file afterwards. force replaces what was changed since shimtrace wrote it.
func Plan(root string, c Config, handlers []Runtime, force bool) (Change, error) {
	path := filepath.Join(root, c.Edit)
	change := Change{Action: Write, Path: path, Config: c, Handlers: handlers}
	content, old, err := readBlock(path)
	if err != nil {
		return change, err
	}
	if old != nil && old.changed && !force {
		return change, fmt.Errorf("what shimtrace wrote into %s was changed since: --force replaces it", path)
	}
	now := block{file: content == nil}
	if old != nil {
		now.file, now.made = old.file, old.made
	} else if content == nil {
		_, err := os.Stat(filepath.Dir(path))
		now.made = os.IsNotExist(err)
	}
	change.before, change.made = content, now.made
	rest := old.without(content)
	if err := c.taken(handlers, old); err != nil {
		return change, err
	}
	if len(rest) == 0 {
		now.lines = c.preamble()
	}
	for i, h := range handlers {
		if i > 0 || now.lines != "" {
			now.lines += "\n"
		}
		now.lines += h.Render(c.Version)
	}
	change.after = now.with(rest)
	if err := c.readable(change.after, handlers); err != nil {
		return change, fmt.Errorf("%s: with these handlers it would not be what containerd reads: %w: write them yourself", path, err)
	}
	if string(change.after) == string(change.before) {
		change.Action = Keep
		return change, nil
	}
	change.Diff = diff(path, change.before, change.after)
	return change, writable(path)
}

// preamble is the beginning of a file that has only our block.
func (c Config) preamble() string {
	if strings.HasSuffix(c.Edit, ".tmpl") {
		return "{{ template \"base\" . }}\n"
	}
	return fmt.Sprintf("version = %d\n", c.Version)
}

// taken returns an error if the configuration has a handler's name that shimtrace has not put
// there.
func (c Config) taken(handlers []Runtime, old *block) error {
	for _, h := range handlers {
		i := slices.IndexFunc(c.Runtimes, func(r Runtime) bool { return r.Name == h.Name })
		if i < 0 || old != nil && strings.Contains(old.lines, h.heading(c.Version)) {
			continue
		}
		if r := c.Runtimes[i]; r.Type() != h.Type() || r.Path() != h.Path() {
			return fmt.Errorf("handler %s is in %s, with the shim %s: rename or remove it there", h.Name, c.File, r.Type()+" "+r.Path())
		}
		return fmt.Errorf("handler %s is in %s already, not written by shimtrace: remove it there, or leave it and do without --containerd", h.Name, c.File)
	}
	return nil
}

// readable returns why containerd would not read the handlers from a file. Templates can't
// be parsed before they are executed.
func (c Config) readable(content []byte, handlers []Runtime) error {
	if strings.HasSuffix(c.Edit, ".tmpl") || strings.Contains(string(content), "{{") {
		return nil
	}
	tree, err := tomltree.Parse(content)
	if err != nil {
		return err
	}
	has := runtimes(tree, c.Version)
	for _, h := range handlers {
		if !slices.ContainsFunc(has, func(r Runtime) bool { return r.Name == h.Name && r.Type() == h.Type() && r.Path() == h.Path() }) {
			return fmt.Errorf("it has no handler %s", h.Name)
		}
	}
	return nil
}

// PlanRemoval returns the changes that remove our blocks from all configurations below
// root, and from files that are no longer imported.
func PlanRemoval(root string, configs []Config, force bool) (changes []Change, err error) {
	var paths []string
	add := func(path string) {
		if path != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	for _, c := range configs {
		add(c.Edit)
		add(c.File)
	}
	for _, p := range locations {
		add("/" + p.file)
		for _, edit := range []string{p.edit, p.v3} {
			if edit != "" {
				add("/" + edit)
			}
		}
	}
	var errs []error
	for _, p := range paths {
		change, err := planRemoval(filepath.Join(root, p), force)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if change.Action == "" {
			continue
		}
		i := slices.IndexFunc(configs, func(c Config) bool { return c.Edit == p || c.File == p })
		if i >= 0 {
			change.Config = configs[i]
		}
		changes = append(changes, change)
	}
	return changes, errors.Join(errs...)
}

func planRemoval(path string, force bool) (Change, error) {
	content, old, err := readBlock(path)
	if err != nil || old == nil {
		return Change{}, err
	}
	if old.changed && !force {
		return Change{}, fmt.Errorf("what shimtrace wrote into %s was changed since: --force removes it", path)
	}
	c := Change{Action: Remove, Path: path, before: content, made: old.made}
	if rest := old.without(content); len(rest) > 0 || !old.file {
		c.after = rest
	}
	c.Diff = diff(path, c.before, c.after)
	return c, writable(path)
}

// readBlock reads a file, nil if it is not there, and finds our block in it.
func readBlock(path string) ([]byte, *block, error) {
	content, err := tomltree.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	b, err := findBlock(content)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return content, b, err
}

// Do makes the change, wholly or not at all.
func (c Change) Do() error {
	if c.Action == Keep {
		return nil
	}
	return c.put(c.before, c.after)
}

// Undo reverses the change. It fails if somebody else has changed the file
// meanwhile.
func (c Change) Undo() error {
	if c.Action == Keep {
		return nil
	}
	return c.put(c.after, c.before)
}

// put replaces the file's content by another one; nil is no file.
func (c Change) put(was, content []byte) error {
	path := c.Path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // a link stays
	}
	now, err := tomltree.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		now, err = nil, nil
	}
	if err != nil {
		return err
	}
	if string(now) != string(was) {
		return fmt.Errorf("%s was changed at this moment: try again", path)
	}
	if content == nil {
		err := os.Remove(path)
		if c.made && err == nil {
			if err = os.Remove(filepath.Dir(path)); errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
				err = nil // others have put files there
			}
		}
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return replace(path, content)
}

// replace replaces the file at path, with its owner and mode.
func replace(path string, content []byte) error {
	return atomicfile.Replace(path, filepath.Dir(path), bytes.NewReader(content), func(f *os.File) error {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			return f.Chmod(0o644)
		}
		return errors.Join(f.Chown(int(st.Uid), int(st.Gid)), f.Chmod(os.FileMode(st.Mode&0o777)))
	})
}

// writable returns an error if the file cannot be replaced.
func writable(path string) error {
	dir := filepath.Dir(path)
	for {
		err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS)
		if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written to: %w: be root, or write the handlers yourself", dir, err)
		}
		return nil
	}
}
