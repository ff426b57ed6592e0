package kataconfig

import (
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/mod/semver"
)

// Effective is what a configuration says together with its drop-ins.
type Effective struct {
	// Hypervisor is the name of the VMM's section: "qemu", "clh", "cloud-hypervisor",
	// "firecracker", "dragonball", "stratovirt", "remote"; empty if there is none.
	Hypervisor string
	// Settings are the tracing switches. Agent is false unless all agents have it on.
	Settings
}

// Effective reads the configuration as Kata does.
func (c Config) Effective() (e Effective, err error) {
	dir := filepath.Join(filepath.Dir(c.File), dirName)
	ours, err := inspect(filepath.Join(dir, fileName))
	if err != nil {
		return e, err
	}
	t, err := merged(c.File, dir, ours.content)
	if err != nil {
		return e, err
	}
	e.Runtime, _ = t.Get("runtime", "enable_tracing").(bool)
	e.Endpoint, _ = t.Get("runtime", "jaeger_endpoint").(string)
	e.Agent = len(c.agents) > 0
	for _, a := range c.agents {
		on, _ := t.Get("agent", a, "enable_tracing").(bool)
		e.Agent = e.Agent && on
	}
	if e.Hypervisor, _ = t.Get("runtime", "hypervisor_name").(string); e.Hypervisor == "" {
		for _, name := range slices.Sorted(maps.Keys(t.Table("hypervisor"))) {
			e.Hypervisor = name
		}
	}
	return e, nil
}

// Encoding returns the encoding in which agents of this version send their spans, empty
// if the version is unknown or has none (docs/kata-span-protocol.md).
func (c Config) Encoding() string {
	v := "v" + c.Version
	switch {
	case !semver.IsValid(v) || semver.Compare(v, "v2.1.0") < 0:
		return ""
	case semver.Compare(v, "v3.29.0") < 0:
		return "bincode"
	}
	return "JSON"
}
