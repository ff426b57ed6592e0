package rig

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// A Runtime is a runtime that containerd can start: a handler of CRI, and what
// ctr and nerdctl are given.
type Runtime struct {
	Name string // the handler, for Pod.Runtime
	Type string // runtime_type, for instance io.containerd.runc.v2
	// Path of the shim; if empty, containerd derives the program's name from
	// Type and searches its PATH.
	Path string
	// TOML is further lines of the handler's section, for instance
	// `sandboxer = "shim"`.
	TOML string
}

// Runc is plain runc. Every rig has it.
var Runc = Runtime{Name: "runc", Type: "io.containerd.runc.v2"}

// Shim is what ctr's --runtime takes: the shim's path if it has one, else its
// type.
func (rt Runtime) Shim() string {
	if rt.Path != "" {
		return rt.Path
	}
	return rt.Type
}

var (
	//go:embed containerd-2.4.toml
	config24 string
	//go:embed containerd-1.toml
	config1 string
	//go:embed network.conflist
	networkConf string
)

// writeConfig writes what containerd and the clients read: containerd's
// configuration, the CNI network, and crictl's configuration.
func (r *Rig) writeConfig() error {
	values := struct {
		Dir, Network, CRI string
		Runtimes          []Runtime
	}{r.Dir, Network, r.opts.CRI, append([]Runtime{Runc}, r.opts.Runtimes...)}
	containerd := map[Version]string{V24: config24, V17: config1, V16: config1, Host: config1}[r.opts.Version] + "\n" + r.opts.TOML
	for name, text := range map[string]string{
		"config.toml":                       containerd,
		"cni.d/10-" + Network + ".conflist": networkConf,
		// A busy machine may need longer than crictl's 2 s.
		"crictl.yaml": "timeout: 60\n",
	} {
		tmpl, err := template.New(name).Parse(text)
		if err != nil {
			return err
		}
		var out strings.Builder
		if err := tmpl.Execute(&out, values); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(out.String()), 0o644); err != nil {
			return fmt.Errorf("write the rig's configuration: %w", err)
		}
	}
	return nil
}
