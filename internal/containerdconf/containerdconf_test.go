package containerdconf

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

func build(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const kata3 = `
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu]
  runtime_type = "io.containerd.kata-qemu.v2"
  runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
  privileged_without_host_devices = true
  pod_annotations = ["io.katacontainers.*"]
  snapshotter = "nydus"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata-qemu.options]
    ConfigPath = "/opt/kata/share/defaults/kata-containers/runtimes/qemu/configuration-qemu.toml"
[plugins."io.containerd.cri.v1.images".runtime_platforms.kata-qemu]
  snapshotter = "nydus"
`

// TestPlaces looks where containerd and its distributions keep their configuration, and
// for the file that an operator changes there.
func TestPlaces(t *testing.T) {
	const runc2 = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
	const runc3 = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
	for _, tt := range []struct {
		file, text, edit string
		version          int
	}{
		{"etc/containerd/config.toml", runc2, "/etc/containerd/config.toml", 2},
		{"etc/containerd/config.toml", "\xef\xbb\xbf" + runc3, "/etc/containerd/config.toml", 3},
		{"etc/containerd/config.toml", strings.Replace(runc3, "3", "4", 1), "/etc/containerd/config.toml", 4},
		{"etc/containerd/config.toml", "imports = ['/etc/containerd/conf.d/*.toml']\n" + runc3, "/etc/containerd/conf.d/80-shimtrace.toml", 3},
		{"etc/containerd/config.toml", "imports = ['conf.d/*.toml', 'x.toml']\n" + runc2, "/etc/containerd/conf.d/80-shimtrace.toml", 2},
		{"etc/containerd/config.toml", "[plugins.cri.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v1\"\n", "/etc/containerd/config.toml", 1},
		{"var/lib/rancher/k3s/agent/etc/containerd/config.toml", runc2, "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl", 2},
		{"var/lib/rancher/rke2/agent/etc/containerd/config.toml", runc3, "/var/lib/rancher/rke2/agent/etc/containerd/config-v3.toml.tmpl", 3},
		{"etc/k0s/containerd.toml", runc2, "/etc/k0s/containerd.d/80-shimtrace.toml", 2},
		{"var/snap/microk8s/current/args/containerd-template.toml", runc2, "/var/snap/microk8s/current/args/containerd-template.toml", 2},
		{"etc/cri/containerd.toml", runc3, "/etc/cri/conf.d/20-customization.part", 3},
	} {
		configs, unread := Find(build(t, map[string]string{tt.file: tt.text}))
		if len(unread) > 0 || len(configs) != 1 {
			t.Errorf("%s: %+v, %v", tt.file, configs, unread)
			continue
		}
		c := configs[0]
		if c.File != "/"+tt.file || c.Edit != tt.edit || c.Version != tt.version || len(c.Runtimes) != 1 || c.Runtimes[0].Name != "runc" {
			t.Errorf("got %+v, want %+v", c, tt)
		}
	}
}

// TestImports reads kata-deploy's own file, which the main one imports.
func TestImports(t *testing.T) {
	root := build(t, map[string]string{
		"etc/containerd/config.toml":                          "version = 3\nimports = [\"/opt/kata/containerd/config.d/kata-deploy.toml\", \"/etc/containerd/config.toml\"]\n",
		"opt/kata/containerd/config.d/kata-deploy.toml":       "imports = [\"more/*\"]\n" + kata3,
		"opt/kata/containerd/config.d/more/10-another.toml":   "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata-clh]\nruntime_type = 'io.containerd.kata-clh.v2'\n",
		"opt/kata/containerd/config.d/nobody-reads-this.toml": "[\n",
	})
	configs, unread := Find(root)
	if len(unread) > 0 || len(configs) != 1 || len(configs[0].Runtimes) != 2 {
		t.Fatalf("%+v, %v", configs, unread)
	}
	kata := configs[0].Runtimes[1]
	if kata.Name != "kata-qemu" || kata.Type() != "io.containerd.kata-qemu.v2" || kata.Path() != "/opt/kata/bin/containerd-shim-kata-v2" || kata.Snapshotter != "nydus" ||
		kata.ConfigPath() != "/opt/kata/share/defaults/kata-containers/runtimes/qemu/configuration-qemu.toml" {
		t.Errorf("got %+v", kata)
	}
	if configs[0].Edit != "/etc/containerd/config.toml" || !configs[0].Exists(root) {
		t.Errorf("one writes to %s", configs[0].Edit)
	}
}

// TestUnread: unreadable files are reported, and the others are found.
func TestUnread(t *testing.T) {
	root := build(t, map[string]string{
		"etc/containerd/config.toml":                           "[plugins\n",
		"var/lib/rancher/k3s/agent/etc/containerd/config.toml": "version = 2\n",
	})
	configs, unread := Find(root)
	if len(configs) != 1 || len(unread) != 1 || !strings.Contains(unread[0].Error(), "etc/containerd/config.toml is not TOML") {
		t.Errorf("%+v, %v", configs, unread)
	}
	// A value of the wrong type counts as missing.
	configs, unread = Find(build(t, map[string]string{"etc/containerd/config.toml": "version = 'x'\nimports = [1]\nplugins = 7\n"}))
	if len(configs) != 1 || len(unread) != 0 || len(configs[0].Runtimes) != 0 {
		t.Errorf("%+v, %v", configs, unread)
	}
}

// TestTraced: the traced handler equals the other one except for its shim, and reads
// back so, in files of each version.
func TestTraced(t *testing.T) {
	configs, _ := Find(build(t, map[string]string{"etc/containerd/config.toml": "version = 3\n" + kata3}))
	kata := configs[0].Runtimes[0]
	traced := kata.Traced("kata-qemu-traced", "io.containerd.kata-qemu-traced.v2", "")
	for version := 1; version <= 4; version++ {
		tree, err := tomltree.Parse([]byte(traced.Render(version)))
		if err != nil {
			t.Fatalf("%v in:\n%s", err, traced.Render(version))
		}
		got := runtimes(tree, version)
		if len(got) != 1 || got[0].Name != "kata-qemu-traced" || got[0].Type() != "io.containerd.kata-qemu-traced.v2" || got[0].Path() != "" {
			t.Errorf("version %d: got %+v", version, got)
			continue
		}
		if want := map[bool]string{true: "nydus"}[version >= 3]; got[0].Snapshotter != want {
			t.Errorf("version %d: the images' snapshotter is %q, want %q", version, got[0].Snapshotter, want)
		}
		for _, key := range []string{"options", "pod_annotations", "snapshotter", "privileged_without_host_devices"} {
			if !reflect.DeepEqual(got[0].Section[key], kata.Section[key]) {
				t.Errorf("version %d: %s is %v, was %v", version, key, got[0].Section[key], kata.Section[key])
			}
		}
	}
	if kata.Path() == "" {
		t.Error("the handler itself was changed")
	}
	runc := Runtime{Name: "odd.name"}.Traced("odd.name-traced", "io.containerd.runc.v2", "/usr/local/bin/x")
	if text := runc.Render(2); !strings.HasPrefix(text, `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes."odd.name-traced"]`+"\n") || !strings.Contains(text, "runtime_path = '/usr/local/bin/x'") {
		t.Error(text)
	}
}
