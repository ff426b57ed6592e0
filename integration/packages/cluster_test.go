package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestNodeInstaller runs what the DaemonSet's first container runs, on a node in a
// directory whose containerd is a real one: pods of the class are traced, and uninstalling
// leaves the node as it was. Only the restart goes another way than over D-Bus.
func TestNodeInstaller(t *testing.T) {
	bin, err := traced.Bin()
	if err != nil {
		t.Fatal(err)
	}
	env := journal(t)
	r := rig.Start(t, rig.Options{Version: rig.V24, Env: []string{env}})
	host := node(t, r)
	before := tree(t, host)
	run := func(manifest string) string {
		t.Helper()
		args, path := container(t, manifest)
		for i, a := range args {
			switch a {
			case "--root=/host":
				args[i] = "--root=" + host
			case "--bindir=/opt/shimtrace/bin":
				args[i] = "--bindir=" + host + "/opt" // where this machine's containerd finds it, too
			case "--restart":
				// The rig's containerd is not systemd's.
				args[i] = "--restart-with=" + r.RestartCommand(t)
			}
		}
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "shimtrace"), append([]string{"install"}, args...)...)
		cmd.Env = []string{"PATH=" + path}
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s%s", err, out, &said)
		}
		return string(out)
	}
	if out := run("install.yaml"); !strings.Contains(out, "its CRI has loaded: runc-traced") {
		t.Errorf("it says:\n%s", out)
	}
	trace(t, filepath.Join(host, "opt"), r, env)
	run("uninstall.yaml")
	same(t, host, before)
}

// node makes a node's directories: its containerd's configuration and socket are the
// rig's, and below it is also the path that leads to it.
func node(t *testing.T, r *rig.Rig) string {
	t.Helper()
	host := t.TempDir()
	for _, dir := range []string{"etc/containerd", "usr/bin", "usr/local/bin", "opt"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{host, r.Dir} {
		if err := os.MkdirAll(filepath.Join(host, filepath.Dir(dir)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir, filepath.Join(host, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(r.Dir, "config.toml"), filepath.Join(host, "etc/containerd/config.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "usr/bin/containerd-shim-runc-v2"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return host
}

var (
	argument = regexp.MustCompile(`(?m)^            - (--\S+)$`)
	pathLine = regexp.MustCompile(`- name: PATH\n\s+value: "([^"]+)"`)
)

// container returns the arguments and the PATH of the manifest's first container.
func container(t *testing.T, manifest string) (args []string, path string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(traced.Root(), "deploy/manifests", manifest))
	if err != nil {
		t.Fatal(err)
	}
	_, first, found := strings.Cut(string(text), "command: [/usr/bin/shimtrace, install]")
	first, _, ended := strings.Cut(first, "volumeMounts:")
	for _, m := range argument.FindAllStringSubmatch(first, -1) {
		args = append(args, m[1])
	}
	value := pathLine.FindStringSubmatch(first)
	if !found || !ended || len(args) < 3 || value == nil {
		t.Fatalf("%s: %q, %q", manifest, args, value)
	}
	return args, value[1]
}
