package install

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/containerdconf"
	"github.com/shimtrace/shimtrace/internal/programs"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// tracedRuntime is a traced runtime in terms of containerd's configuration.
type tracedRuntime struct {
	// Name is the name of the CRI runtime handler.
	Name  string `json:"name"`
	Inner string `json:"inner"`
	// Like is the handler that it copies except for the shim; empty if containerd's
	// configuration has none for the inner shim.
	Like string `json:"like,omitempty"`
	Type string `json:"runtime_type"`
	// Path is empty where containerd derives it from the type.
	Path string `json:"runtime_path,omitempty"`
	// ClientType is the runtime type for clients without handlers: nerdctl, ctr.
	ClientType string `json:"client_runtime_type"`
	// Shim is the inner shim's program if it is known but not on PATH; the
	// configuration must name it.
	Shim string `json:"shim,omitempty"`
	// Options is Kata's configuration file, for the runtime's options.
	Options  string    `json:"config_path,omitempty"`
	Sections []section `json:"sections"`
}

// section is text to add to a file of containerd's configuration.
type section struct {
	File    string `json:"file"`
	Version int    `json:"version"` // of the file's format
	New     bool   `json:"new,omitempty"`
	Text    string `json:"text"`

	config  containerdconf.Config
	handler containerdconf.Runtime
}

// unknown stands for a containerd configuration that was not found: both formats are
// printed.
var unknown = []containerdconf.Config{
	{Edit: "/etc/containerd/config.toml", Version: 3},
	{Edit: "/etc/containerd/config.toml", Version: 2},
}

// runtimes returns the traced runtimes for an inner shim: one for each of containerd's
// handlers for it, else one with the inner shim's name.
func (in *installer) runtimes(inner shimname.Name, kata *kataSetUp) (all []tracedRuntime) {
	for _, c := range in.containerd {
		for _, like := range c.Runtimes {
			if n, ok := innerOfHandler(like); !ok || n != inner {
				continue
			}
			i := slices.IndexFunc(all, func(r tracedRuntime) bool { return r.Like == like.Name })
			if i < 0 {
				i = len(all)
				all = append(all, in.newRuntime(inner, kata, like))
			}
			r := &all[i]
			r.Sections = append(r.Sections, in.section(c, like.Traced(r.Name, r.Type, r.Path).Passing(in.causes(inner)...), ""))
		}
	}
	if len(all) > 0 {
		return all
	}
	r := in.newRuntime(inner, kata, containerdconf.Runtime{})
	configs := in.containerd
	if len(configs) == 0 {
		configs = unknown
	}
	for _, c := range configs {
		r.Sections = append(r.Sections, in.section(c, r.handler().Passing(in.causes(inner)...), r.hint()))
	}
	return []tracedRuntime{r}
}

// causes returns the keys of pods' annotations with the context of what caused the pod.
func (in *installer) causes(inner shimname.Name) []string {
	cfg, _ := config.Load(inner.Inner, in.opts.Getenv)
	return cfg.Trace.Annotations
}

// innerOfHandler returns the shim that containerd runs for a handler; ok is false for a
// traced one. A runtime path may replace runc's shim by another.
func innerOfHandler(r containerdconf.Runtime) (n shimname.Name, ok bool) {
	if _, traced := shimname.ParseLink(r.Path()); traced {
		return n, false
	}
	n, ok = shimname.OfType(r.Type())
	if other, is := shimname.Parse(r.Path()); n == shimname.Runc && is {
		n = other
	}
	return n, ok
}

// innersOfContainerd returns the inner shims of handlers whose program exists.
func (in *installer) innersOfContainerd() (inners []shimname.Name) {
	for _, c := range in.containerd {
		for _, r := range c.Runtimes {
			if n, ok := innerOfHandler(r); ok && r.Path() != "" && programs.Executable(filepath.Join(in.opts.Root, r.Path())) {
				inners = append(inners, n)
			}
		}
	}
	return inners
}

// section returns a handler's section, with a hint for a person who adds it.
func (in *installer) section(c containerdconf.Config, h containerdconf.Runtime, hint string) section {
	return section{
		File: c.Edit, Version: c.Version, New: c.File != "" && !c.Exists(in.opts.Root), Text: h.Render(c.Version) + hint,
		config: c, handler: h,
	}
}

// newRuntime returns the traced runtime for an inner shim. containerd's CRI plugin
// chooses the type of a runtime's options by the runtime type: only
// io.containerd.runc.v2 gets runc's, so that type stays and the path changes. Kata's
// shim requires io.containerd.kata in the type, which the traced type contains.
func (in *installer) newRuntime(inner shimname.Name, kata *kataSetUp, like containerdconf.Runtime) tracedRuntime {
	r := tracedRuntime{Name: inner.String() + "-traced", Inner: inner.Inner, Like: like.Name, Type: inner.RuntimeType(), ClientType: inner.RuntimeType()}
	if like.Name != "" {
		r.Name = like.Name + "-traced"
	}
	if inner == shimname.Runc {
		r.ClientType = shimname.RuncWithOptions.RuntimeType()
		r.Type, r.Path = "io.containerd.runc.v2", filepath.Join(in.opts.BinDir, inner.Link())
		if strings.HasPrefix(in.containerdVersion(), "1.6.") {
			r.Type, r.Path = r.ClientType, ""
			in.opts.Warn("containerd 1.6 forgets runtime_path, so %s is told by its type, which gets none of runc's options: where these matter, link %s in the place of %s (docs/operation.md)", r.Name, inner.Link(), inner.File())
		}
	}
	var shim string
	r.Options, shim = kata.of(inner)
	if like.ConfigPath() != "" {
		r.Options = like.ConfigPath()
	}
	if like.Path() != "" {
		shim = like.Path()
	}
	onPath := in.lookPath(inner.File())
	needed := onPath == "" || like.Path() != "" && like.Path() != onPath
	if cfg, _ := config.Load(inner.Inner, in.opts.Getenv); needed && cfg.Shim == "" {
		if r.Shim = shim; shim == "" {
			in.opts.Warn("%s is not on PATH; unless containerd's PATH has it, set shim in [runtime.%s] of the configuration", inner.File(), inner.Inner)
		}
	}
	return r
}

// handler returns the handler of a runtime that copies no other.
func (r tracedRuntime) handler() containerdconf.Runtime {
	table := tomltree.Tree{}
	if strings.HasPrefix(r.Inner, "kata") {
		table["privileged_without_host_devices"] = true
		table["pod_annotations"] = []string{"io.katacontainers.*"}
		if r.Options != "" {
			table["options"] = map[string]any{"ConfigPath": r.Options}
		}
	}
	return containerdconf.Runtime{Section: table}.Traced(r.Name, r.Type, r.Path)
}

// hint says what a handler that copies no other may need.
func (r tracedRuntime) hint() string {
	switch {
	case r.Inner == "runc":
		return "  # and the options of your runc runtime, for instance SystemdCgroup = true\n"
	case !strings.HasPrefix(r.Inner, "kata"):
		return "  # and the options of your " + r.Inner + " runtime\n"
	case r.Options == "":
		return "  # and the options of your " + r.Inner + " runtime, for instance ConfigPath = \"" + kataConfig(r.Inner) + "\"\n"
	}
	return ""
}

// kataConfig returns where kata-deploy puts the configuration of kata-<hypervisor>.
func kataConfig(inner string) string {
	file := "configuration" + strings.TrimPrefix(inner, "kata") + ".toml"
	return "/opt/kata/share/defaults/kata-containers/" + file
}
