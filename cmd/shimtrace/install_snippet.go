package main

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/shimtrace/shimtrace/config"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// tracedRuntime is a traced runtime as containerd's configuration names it.
type tracedRuntime struct {
	// Name is that of the CRI runtime handler, which is free to choose.
	Name  string `json:"name"`
	Inner string `json:"inner"`
	Type  string `json:"runtime_type"`
	// Path is empty where containerd derives it from the type.
	Path string `json:"runtime_path,omitempty"`
	// ClientType is the runtime type for clients that know no handlers: nerdctl, ctr.
	ClientType string `json:"client_runtime_type"`
	// Shim is the inner shim's program where it is not on PATH but known; the
	// configuration must name it.
	Shim string `json:"shim,omitempty"`
	// Options is Kata's configuration file, for the options of the runtime.
	Options string `json:"config_path,omitempty"`
	// Config1 and Config2 are the sections for containerd 1.7 and 2.x.
	Config1 string `json:"containerd_1_7"`
	Config2 string `json:"containerd_2"`
}

// The CRI plugin's table of runtimes in containerd's configuration.
const (
	criTable1 = `plugins."io.containerd.grpc.v1.cri".containerd.runtimes` // version 2
	criTable2 = `plugins."io.containerd.cri.v1.runtime".containerd.runtimes`
)

// newRuntime names the runtime for an inner shim. containerd's CRI chooses the
// type of a runtime's options by the runtime's type: only io.containerd.runc.v2
// has runc's, so that type stays and the path changes. Kata's shim wants the type
// to contain io.containerd.kata, which the traced type does.
func (h *host) newRuntime(in *installer, inner shimname.Name, kata *kataSetUp) tracedRuntime {
	r := tracedRuntime{Name: inner.String() + "-traced", Inner: inner.Inner, Type: inner.RuntimeType(), ClientType: inner.RuntimeType()}
	if inner == shimname.Runc {
		r.Type = "io.containerd.runc.v2"
		r.Path = filepath.Join(in.bindir, inner.Link())
		r.ClientType = shimname.RuncWithOptions.RuntimeType()
	}
	var shim string
	r.Options, shim = kata.of(inner)
	if cfg, _ := config.Load(inner.Inner, h.getenv); in.lookPath(inner.File()) == "" && cfg.Shim == "" {
		if r.Shim = shim; shim == "" {
			h.warn("%s is not on PATH; unless containerd's PATH has it, set shim in [runtime.%s] of the configuration", inner.File(), inner.Inner)
		}
	}
	r.Config1, r.Config2 = r.section(criTable1), r.section(criTable2)
	return r
}

func (r tracedRuntime) section(table string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s.%s]\n", table, r.Name)
	fmt.Fprintf(&b, "  runtime_type = %q\n", r.Type)
	if r.Path != "" {
		fmt.Fprintf(&b, "  runtime_path = %q\n", r.Path)
	}
	options := fmt.Sprintf("  # [%s.%s.options]\n", table, r.Name)
	switch {
	case r.Inner == "runc":
		b.WriteString("  # and the options of your runc runtime, for instance:\n" + options)
		b.WriteString("  #   SystemdCgroup = true\n")
	case strings.HasPrefix(r.Inner, "kata"):
		b.WriteString("  privileged_without_host_devices = true\n")
		b.WriteString("  pod_annotations = [\"io.katacontainers.*\"]\n")
		if r.Options != "" {
			fmt.Fprintf(&b, "  [%s.%s.options]\n    ConfigPath = %q\n", table, r.Name, r.Options)
			break
		}
		b.WriteString("  # and the options of your " + r.Inner + " runtime, for instance:\n" + options)
		fmt.Fprintf(&b, "  #   ConfigPath = %q\n", kataConfig(r.Inner))
	default:
		b.WriteString("  # and the options of your " + r.Inner + " runtime, in:\n" + options)
	}
	return b.String()
}

// kataConfig is where kata-deploy puts the configuration of kata-<hypervisor>.
func kataConfig(inner string) string {
	file := "configuration" + strings.TrimPrefix(inner, "kata") + ".toml"
	return "/opt/kata/share/defaults/kata-containers/" + file
}

// writeSnippets prints what to put into containerd's configuration.
func writeSnippets(w io.Writer, runtimes []tracedRuntime) error {
	var b bytes.Buffer
	b.WriteString("\nFor Kubernetes, add to /etc/containerd/config.toml and restart containerd.\n")
	b.WriteString("\ncontainerd 2.x (version = 3):\n")
	for _, r := range runtimes {
		b.WriteString("\n" + r.Config2)
	}
	b.WriteString("\ncontainerd 1.7 (version = 2):\n")
	for _, r := range runtimes {
		b.WriteString("\n" + r.Config1)
	}
	b.WriteString("\nctr and nerdctl need no configuration:\n\n")
	for _, r := range runtimes {
		fmt.Fprintf(&b, "  nerdctl run --runtime %s …\n", r.ClientType)
	}
	heading := "\nFor " + config.DefaultPath + ", since these shims are not on PATH:\n"
	for _, r := range runtimes {
		if r.Shim != "" {
			fmt.Fprintf(&b, "%s\n[runtime.%s]\nshim = %q\n", heading, r.Inner, r.Shim)
			heading = ""
		}
	}
	b.WriteString("\nThen: shimtrace list, shimtrace show\n")
	_, err := w.Write(b.Bytes())
	return err
}
