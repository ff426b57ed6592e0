package kataconfig

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const endpoint = "http://127.0.0.1:276/api/traces"

var both = Settings{Agent: true, Runtime: true, Endpoint: endpoint}

// goConfig has the form of the Go runtime's configuration, whose switches are comments
// in some releases and off in others.
const goConfig = `# Generated.
[hypervisor.qemu]
path = "/opt/kata/bin/qemu-system-x86_64"
kernel_params = ""
enable_annotations = ["enable_iommu", "virtio_fs_extra_args", "kernel_params"]
default_vcpus = 1

[factory]
vm_cache_number = 0

[agent.kata]
# enable_debug = true
#enable_tracing = true
kernel_modules = ["e1000e InterruptThrottleRate=3000,3000,3000 EEE=1"]
dial_timeout = 45

[runtime]
internetworking_model = "tcfilter"
disable_guest_seccomp = true
enable_tracing = false
jaeger_endpoint = ""
jaeger_user = ""
sandbox_cgroup_only = false
experimental = []
`

// rustConfig has the form of runtime-rs's configuration.
const rustConfig = `# Generated.
[hypervisor.dragonball]
path = ""
kernel_params = ""
default_vcpus = 1

[hypervisor.dragonball.factory]
enable_template = false

[agent.kata]
container_pipe_size = 0
enable_debug = false
enable_tracing = false
dial_timeout_ms = 10
reconnect_timeout_ms = 3000

[agent.kata.mem_agent]
mem_agent_enable = false
compact_force_times = 9223372036854775807

[runtime]
name = "virt_container"
hypervisor_name = "dragonball"
agent_name = "kata"
internetworking_model = "tcfilter"
use_passfd_io = true
`

// build creates a tree in a temporary directory and returns the directory: "-> x" is a
// link, a name ending in "/" a directory.
func build(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// snapshot returns the state of a tree: names, modes, contents, links.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b.WriteString(info.Mode().String() + " " + strings.TrimPrefix(path, root) + "\n")
		switch {
		case info.Mode().IsRegular():
			content, err := os.ReadFile(path)
			b.Write(content)
			return err
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			b.WriteString(target + "\n")
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func find(t *testing.T, root string) []Config {
	t.Helper()
	configs, notes := Find(root)
	if len(notes) > 0 {
		t.Fatal(notes)
	}
	return configs
}

// turnOn plans and makes the changes, and returns them.
func turnOn(t *testing.T, root string, s Settings) []Change {
	t.Helper()
	changes, err := Plan(root, find(t, root), s, false)
	if err != nil {
		t.Fatal(err)
	}
	do(t, changes)
	return changes
}

func turnOff(t *testing.T, root string) []Change {
	t.Helper()
	changes, err := PlanRemoval(nil, FindDropIns(root), false)
	if err != nil {
		t.Fatal(err)
	}
	do(t, changes)
	return changes
}

func do(t *testing.T, changes []Change) {
	t.Helper()
	for _, c := range changes {
		if err := c.Do(); err != nil {
			t.Fatal(err)
		}
	}
}

// wantError checks that the error contains each of the texts.
func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want an error that says %q", err, text)
		}
	}
}

const (
	opt  = "opt/kata/" + defaults + "/"
	rust = opt + "runtime-rs/"
)

// static is an installation from Kata's archive: several configurations share one
// directory, and one of them has a second name.
func static() map[string]string {
	return map[string]string{
		opt + "configuration-qemu.toml":        goConfig,
		opt + "configuration-clh.toml":         strings.ReplaceAll(goConfig, "qemu", "clh"),
		opt + "configuration.toml":             "-> configuration-qemu.toml",
		rust + "configuration-dragonball.toml": rustConfig,
		rust + "configuration.toml":            "-> configuration-dragonball.toml",
		"opt/kata/VERSION":                     "3.20.0\n",
	}
}

// deployed is what kata-deploy of Kata 4 installs: a directory for each runtime class,
// with links in the files' old locations, and its own drop-ins.
func deployed() map[string]string {
	return map[string]string{
		opt + "configuration-qemu.toml":                                    "-> runtimes/qemu/configuration-qemu.toml",
		opt + "runtimes/qemu/configuration-qemu.toml":                      goConfig,
		opt + "runtimes/qemu/config.d/10-installation-prefix.toml":         "[hypervisor.qemu]\npath = \"/opt/kata-x/bin/qemu\"\n",
		opt + "runtimes/qemu/config.d/50-user-overrides.toml":              "[agent.kata]\ndial_timeout = 60\n",
		rust + "configuration-clh-runtime-rs.toml":                         "-> runtimes/clh-runtime-rs/configuration-clh-runtime-rs.toml",
		rust + "runtimes/clh-runtime-rs/configuration-clh-runtime-rs.toml": rustConfig,
		rust + "runtimes/clh-runtime-rs/config.d/30-kernel-params.toml":    "[hypervisor.dragonball]\nkernel_params = \"quiet\"\n",
		opt + "custom-runtimes/kata-mine/configuration-qemu.toml":          goConfig,
		opt + "custom-runtimes/kata-mine/config.d/":                        "",
		"opt/kata/bin/containerd-shim-kata-v2":                             "",
		"opt/kata/runtime-rs/bin/containerd-shim-kata-v2":                  "",
		"opt/kata/VERSION":                                                             "4.1.0",
		"etc/kata-containers/configuration.toml":                                       "-> /" + opt + "configuration-qemu.toml",
		"usr/" + defaults + "/runtime-rs/README":                                       "nothing to read",
		"opt/kata-second/" + defaults + "/runtimes/fc/configuration-fc.toml":           strings.ReplaceAll(goConfig, "qemu", "firecracker"),
		"opt/kata-second/" + defaults + "/runtimes/fc/config.d/10-installation-x.toml": "",
	}
}
