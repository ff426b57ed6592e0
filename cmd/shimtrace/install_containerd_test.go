package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/console"
)

// TestInstallLikeContainerd: each of containerd's runtimes gets a traced copy: those of
// two Kata installations by kata-deploy, one with the suffix "dev", one at its own
// prefix with a snapshotter for confidential containers, and runc with systemd cgroups.
func TestInstallLikeContainerd(t *testing.T) {
	p := newKataSite(t, "runc")
	qemu := func(prefix string) string { return prefix + "/share/defaults/kata-containers/runtimes/qemu/" }
	for _, prefix := range []string{"opt/kata-dev", "srv/coco"} {
		p.put(qemu(prefix)+"configuration-qemu.toml", "[agent.kata]\n[runtime]\n")
		p.put(prefix+"/bin/containerd-shim-kata-v2", "")
	}
	handler := func(name, prefix, more string) string {
		return `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.` + name + `]
  runtime_type = "io.containerd.` + name + `.v2"
  runtime_path = "/` + prefix + `/bin/containerd-shim-kata-v2"
  privileged_without_host_devices = true
` + more + `
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.` + name + `.options]
    ConfigPath = "/` + qemu(prefix) + `configuration-qemu.toml"
`
	}
	p.put("etc/containerd/config.toml", `version = 3
imports = ["/opt/kata/containerd/config.d/kata-deploy.toml", "/etc/containerd/conf.d/*.toml"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = true
`)
	p.put("opt/kata/containerd/config.d/kata-deploy.toml", handler("kata-qemu", "opt/kata", "")+handler("kata-qemu-dev", "opt/kata-dev", ""))
	p.put("etc/containerd/conf.d/coco.toml", handler("kata-qemu-coco", "srv/coco", "  snapshotter = \"nydus\"\n")+
		"[plugins.\"io.containerd.cri.v1.images\".runtime_platforms.kata-qemu-coco]\n  snapshotter = \"nydus\"\n")
	for _, prefix := range []string{"opt/kata", "opt/kata-dev", "srv/coco"} {
		if err := os.Chmod(filepath.Join(p.root, prefix, "bin/containerd-shim-kata-v2"), 0o755); err != nil {
			t.Fatal(err)
		}
	}

	r := p.install("--kata", "--force") // the port may be taken on this machine
	for _, text := range []string{
		"For Kubernetes, make /etc/containerd/conf.d/80-shimtrace.toml and restart containerd (version = 3, containerd 2.x):\n\nversion = 3\n",
		".runtimes.runc-traced.options]\n  SystemdCgroup = true\n",
		"[runtime.kata-qemu]\nshim = \"/opt/kata/bin/containerd-shim-kata-v2\"\n",
		"[runtime.kata-qemu-dev]\nshim = \"/opt/kata-dev/bin/containerd-shim-kata-v2\"\n",
		"[runtime.kata-qemu-coco]\nshim = \"/srv/coco/bin/containerd-shim-kata-v2\"\n",
		"[plugins.\"io.containerd.cri.v1.images\".runtime_platforms.kata-qemu-coco-traced]\n  snapshotter = 'nydus'\n",
	} {
		r.want(t, console.OK, text, "")
	}
	for _, dir := range []string{kataQEMU, qemu("opt/kata-dev"), qemu("srv/coco")} {
		if _, err := os.Stat(filepath.Join(p.root, dir, kataDropIn)); err != nil {
			t.Errorf("Kata's tracing is not on: %v", err)
		}
	}
	if strings.Contains(r.stdout, "version = 2") {
		t.Errorf("sections in a format that the file has not:\n%s", r.stdout)
	}

	// Each handler leads to its configuration.
	p.install("--uninstall", "--kata", "kata-qemu-coco").want(t, console.OK, "remove", "")
	if _, err := os.Stat(filepath.Join(p.root, qemu("srv/coco"), kataDropIn)); !os.IsNotExist(err) {
		t.Errorf("still on: %v", err)
	}
	var out installed
	again := p.install("--json", "--kata", "--force", "kata-qemu-dev")
	if err := json.Unmarshal([]byte(again.stdout), &out); err != nil {
		t.Fatalf("%v: %s%s", err, again.stdout, again.stderr)
	}
	if len(out.Runtimes) != 1 || out.Runtimes[0].Like != "kata-qemu-dev" || out.Runtimes[0].Name != "kata-qemu-dev-traced" ||
		out.Runtimes[0].Type != "io.containerd.kata-qemu-dev-traced.v2" || len(out.Runtimes[0].Sections) != 1 || len(out.Kata) != 1 {
		t.Errorf("got %+v", out)
	}

	// All that was written is removed.
	p.install("--uninstall").want(t, console.OK, "remove", "")
	for _, dir := range []string{kataQEMU, kataCLH, qemu("opt/kata-dev"), qemu("srv/coco")} {
		if _, err := os.Stat(filepath.Join(p.root, dir, kataDropIn)); !os.IsNotExist(err) {
			t.Errorf("%s: still on: %v", dir, err)
		}
	}
}

// TestInstallDistributions: the sections are in the format of containerd's file, and
// for the file that the distribution wants edited.
func TestInstallDistributions(t *testing.T) {
	const rancher = "var/lib/rancher/k3s/agent/etc/containerd/"
	for _, tt := range []struct{ file, text, want string }{
		{"etc/containerd/config.toml", "version = 2\n", "add to /etc/containerd/config.toml and restart containerd (version = 2"},
		{rancher + "config.toml", "version = 2\n", "make /" + rancher + "config.toml.tmpl and restart containerd (version = 2, containerd 1.x):\n\n{{ template \"base\" . }}\n\n[plugins.\"io.containerd.grpc.v1.cri\""},
		{rancher + "config.toml", "version = 3\n", "make /" + rancher + "config-v3.toml.tmpl and restart containerd (version = 3, containerd 2.x):\n\n{{ template \"base\" . }}\n\n[plugins.\"io.containerd.cri.v1.runtime\""},
		{"etc/k0s/containerd.toml", "version = 2\n", "make /etc/k0s/containerd.d/80-shimtrace.toml and restart containerd (version = 2, containerd 1.x):\n\nversion = 2\n"},
	} {
		p := newSite(t, "runc")
		path := filepath.Join(p.root, tt.file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		r := p.install()
		r.want(t, console.OK, tt.want, "")
		if n := strings.Count(r.stdout, "For Kubernetes, "); n != 1 {
			t.Errorf("%s: sections for %d files:\n%s", tt.file, n, r.stdout)
		}
	}
	p := newSite(t, "runc")
	if err := os.MkdirAll(filepath.Join(p.root, "etc/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.root, "etc/containerd/config.toml"), []byte("[plugins\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.install().want(t, console.OK, "version = 3", "etc/containerd/config.toml is not TOML")
}

// TestInstallIntoContainerd: the handlers are written as a diff has shown them, and after
// uninstallation the whole root is as before. A containerd that does not restart gets its
// configuration back.
func TestInstallIntoContainerd(t *testing.T) {
	p := newKataSite(t, "runc", "kata")
	p.put("etc/containerd/config.toml", `version = 3
imports = ["/etc/containerd/conf.d/*.toml"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata]
  runtime_type = 'io.containerd.kata.v2'
  snapshotter = 'devmapper'
  pod_annotations = ['io.katacontainers.*']
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata.options]
    ConfigPath = '/etc/kata.toml'
[plugins.'io.containerd.cri.v1.images'.runtime_platforms.kata]
  snapshotter = 'devmapper'
`)
	before := tree(t, p.root)
	for _, text := range []string{
		"--- /dev/null\n+++ " + filepath.Join(p.root, "etc/containerd/conf.d/80-shimtrace.toml") + "\n@@ -0,0 +1,",
		"\n+  ConfigPath = '/etc/kata.toml'\n", "\n+  pod_annotations = ['io.katacontainers.*', 'tracing.k8s.io/traceparent', 'opentelemetry.io/trace-context']\n", "\n+[plugins.\"io.containerd.cri.v1.images\".runtime_platforms.kata-traced]\n+  snapshotter = 'devmapper'\n",
	} {
		p.install("--containerd", "--dry-run").want(t, console.OK, text, "")
	}
	if tree(t, p.root) != before {
		t.Error("a dry run changed something")
	}
	p.install("--restart-with", "echo no >&2; false").want(t, console.Failure, "write ", "put back as it was")
	if got, err := os.ReadDir(filepath.Join(p.root, "etc/containerd")); len(got) != 1 {
		t.Errorf("after a failed restart there is %v (%v)", got, err)
	}
	r := p.install("--containerd", "--kata", "--force")
	r.want(t, console.OK, "After its next restart containerd has the handlers: ", "")
	if strings.Contains(r.stdout, "For Kubernetes, ") {
		t.Errorf("it also says what to add:\n%s", r.stdout)
	}
	if text := p.read("etc/containerd/conf.d/80-shimtrace.toml"); !strings.Contains(text, "runtime_path = '/target/containerd-shim-runc-traced-v2'\n") {
		t.Errorf("written:\n%s", text)
	}
	p.install("--uninstall").want(t, console.OK, "Restart containerd", "")
	if after := tree(t, p.root); after != before {
		t.Errorf("after uninstallation there is:\n%s\nbefore:\n%s", after, before)
	}
	p.install("--uninstall").want(t, console.Nothing, "", "nothing of shimtrace")
}

// TestInstallWithoutConfiguration: a containerd that has none gets one, if it is asked for
// what it reads.
func TestInstallWithoutConfiguration(t *testing.T) {
	p := newSite(t, "runc")
	p.install("--containerd").want(t, console.Nothing, "", "there is no containerd")
	p.install("--containerd-config", "/none.toml").want(t, console.Nothing, "", "none.toml")
}

// tree returns the state of all below root: modes, names, links, contents.
func tree(t *testing.T, root string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		content := []byte(nil)
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		target, _ := os.Readlink(path)
		all = append(all, info.Mode().String()+" "+strings.TrimPrefix(path, root)+" "+target+" "+string(content))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}
