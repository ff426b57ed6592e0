package containerdconf

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// The CRI plugin's names: containerd 2 has split it, and reads the old names only in
// files of version 2.
const (
	cri1   = "cri"
	cri2   = "io.containerd.grpc.v1.cri"
	cri3   = "io.containerd.cri.v1.runtime"
	images = "io.containerd.cri.v1.images"
)

// plugin returns the name of the CRI plugin in files of that version.
func plugin(version int) string {
	switch {
	case version >= 3:
		return cri3
	case version == 2:
		return cri2
	}
	return cri1
}

// A Runtime is one CRI handler: its section, with containerd's keys.
type Runtime struct {
	Name    string
	Section tomltree.Tree
	// Snapshotter is the images plugin's snapshotter for the handler, from version 3 on
	// (runtime_platforms); empty if unset.
	Snapshotter string
}

// Type returns the runtime type, for instance io.containerd.kata.v2.
func (r Runtime) Type() string { return r.text("runtime_type") }

// Path returns the shim's path, empty where containerd derives its name from the type.
func (r Runtime) Path() string { return r.text("runtime_path") }

// ConfigPath returns the runtime's own configuration file, if the options name one, as
// Kata's do.
func (r Runtime) ConfigPath() string { return r.text("options", "ConfigPath") }

func (r Runtime) text(path ...string) string {
	s, _ := r.Section.Get(path...).(string)
	return s
}

func runtimes(tree tomltree.Tree, version int) (all []Runtime) {
	sections := tree.Table("plugins", plugin(version), "containerd", "runtimes")
	platforms := tree.Table("plugins", images, "runtime_platforms")
	for _, name := range slices.Sorted(maps.Keys(sections)) {
		r := Runtime{Name: name, Section: sections.Table(name)}
		r.Snapshotter, _ = platforms.Get(name, "snapshotter").(string)
		if r.Section != nil {
			all = append(all, r)
		}
	}
	return all
}

// misplaced returns the handlers whose sections are under a name that containerd does not
// read in files of that version: it migrates only what is older than the file says.
func misplaced(tree tomltree.Tree, version int) (all []Misplaced) {
	for _, name := range []string{cri1, cri2, cri3} {
		if name == plugin(version) {
			continue
		}
		for _, handler := range slices.Sorted(maps.Keys(tree.Table("plugins", name, "containerd", "runtimes"))) {
			all = append(all, Misplaced{Handler: handler, Plugin: name, Instead: plugin(version)})
		}
	}
	return all
}

// Traced returns a copy of r with that name and another shim: of this type, and at this
// path unless containerd derives it from the type.
func (r Runtime) Traced(name, runtimeType, path string) Runtime {
	t := Runtime{Name: name, Section: maps.Clone(r.Section), Snapshotter: r.Snapshotter}
	if t.Section == nil {
		t.Section = tomltree.Tree{}
	}
	t.Section["runtime_type"] = runtimeType
	delete(t.Section, "runtime_path")
	if path != "" {
		t.Section["runtime_path"] = path
	}
	return t
}

// Passing returns the handler with the keys added to the pod annotations that containerd
// passes on. It leaves out keys that the handler's patterns match already.
func (r Runtime) Passing(keys ...string) Runtime {
	passed := passes(r.Section["pod_annotations"])
	missing := slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		return slices.ContainsFunc(passed, func(pattern string) bool {
			matches, err := path.Match(pattern, key) // as containerd does
			return err == nil && matches
		})
	})
	if len(missing) > 0 {
		r.Section = maps.Clone(r.Section)
		r.Section["pod_annotations"] = append(passed, missing...)
	}
	return r
}

// passes returns a list of patterns in a handler's section.
func passes(value any) (patterns []string) {
	switch list := value.(type) {
	case []string:
		return slices.Clone(list)
	case []any:
		for _, element := range list {
			if pattern, ok := element.(string); ok {
				patterns = append(patterns, pattern)
			}
		}
	}
	return patterns
}

// Render returns the handler's section for a file of that version.
func (r Runtime) Render(version int) string {
	var b strings.Builder
	writeTable(&b, []string{"plugins", plugin(version), "containerd", "runtimes", r.Name}, r.Section)
	if r.Snapshotter != "" && version >= 3 {
		b.WriteString("\n")
		writeTable(&b, []string{"plugins", images, "runtime_platforms", r.Name}, map[string]any{"snapshotter": r.Snapshotter})
	}
	return b.String()
}
