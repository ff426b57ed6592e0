package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/cri"
	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// TestDebian: the package is installed in a root of its own, traces a pod of a real
// containerd, and when it is purged nothing of it is left.
func TestDebian(t *testing.T) {
	if os.Geteuid() != 0 && os.Getenv("CI") == "" {
		t.Skip("installing a package needs root")
	}
	deb := built(t, "*_"+runtime.GOARCH+".deb")
	root := newRoot(t)
	before := tree(t, root)
	dpkg(t, root, "--install", deb)

	in := func(args ...string) string {
		t.Helper()
		return chroot(t, root, args...)
	}
	if out := in("shimtrace", "version"); !strings.Contains(out, "shimtrace 0.") {
		t.Errorf("it is %s", out)
	}
	if out := in("shimtrace", "install", "--containerd"); !strings.Contains(out, "containerd has the handlers: runc-traced") {
		t.Errorf("install says:\n%s", out)
	}
	if target, err := os.Readlink(filepath.Join(root, "usr/local/bin/containerd-shim-runc-traced-v2")); target != "/usr/bin/containerd-shim-traced-v2" {
		t.Errorf("the link leads to %q (%v)", target, err)
	}
	packaged(t, root)

	dpkg(t, root, "--remove", "shimtrace")
	if _, err := os.Stat(filepath.Join(root, "etc/shimtrace/config.toml")); err != nil {
		t.Errorf("removed, it has not left the operator's configuration: %v", err)
	}
	dpkg(t, root, "--purge", "shimtrace")
	same(t, root, before)
}

// newRoot makes a root file system with a shell, a containerd's configuration, and nothing
// installed.
func newRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"bin", "usr/bin", "usr/local/bin", "etc/containerd", "tmp", "run", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/log"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"var/lib/dpkg/status":             "",
		"etc/containerd/config.toml":      "version = 2\n",
		"usr/bin/containerd-shim-runc-v2": "#!/bin/sh\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	shell, err := os.ReadFile(image.BusyboxPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), shell, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sh", "rm", "rmdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// dpkg runs the machine's dpkg on the root, where it also runs the package's scripts.
func dpkg(t *testing.T, root string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "dpkg", append([]string{"--root=" + root, "--force-unsafe-io"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("dpkg %s: %v: %s", args, err, out)
	}
}

func chroot(t *testing.T, root string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "chroot", append([]string{root}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", args, err, out, &said)
	}
	return string(out)
}

// packaged runs a pod under the package's programs.
func packaged(t *testing.T, root string) {
	t.Helper()
	bin := filepath.Join(root, "usr/bin")
	handler := rig.Runtime{Name: "runc-traced", Type: "io.containerd.runc.v2", Path: filepath.Join(bin, "containerd-shim-runc-traced-v2")}
	env := journal(t)
	trace(t, bin, rig.Start(t, rig.Options{Version: rig.V24, Runtimes: []rig.Runtime{handler}, Env: []string{env}}), env)
}

// journal returns the variable for a configuration with a journal of the test's own.
func journal(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(config, []byte(traced.Patient+"[journal]\ndir = \""+dir+"/journal\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "SHIMTRACE_CONFIG=" + config
}

// trace runs a pod of the traced class, and has the tool in a directory show it.
func trace(t *testing.T, bin string, r *rig.Rig, env string) {
	t.Helper()
	pod, err := r.CRI().Run(t.Context(), cri.Pod{Name: "web", Runtime: "runc-traced", Logs: filepath.Join(r.Dir, "logs"), Cgroup: "/" + r.Name})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pod.Start(t.Context(), "app", image.Busybox, rig.Sleep...); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the pod's calls to be in the journal", func() bool {
		show := r.Command(t.Context(), filepath.Join(bin, "shimtrace"), "show", "default/web")
		show.Env = append(show.Env, env)
		out, err := show.CombinedOutput()
		return err == nil && strings.Contains(string(out), "Task/Create")
	})
	if err := r.CRI().RemovePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	for len(traced.Find(r, traced.Relay)) > 0 {
		time.Sleep(20 * time.Millisecond)
	}
	segments, _ := filepath.Glob(filepath.Join(filepath.Dir(strings.TrimPrefix(env, "SHIMTRACE_CONFIG=")), "journal", "*.seg"))
	for _, s := range segments {
		if info, err := os.Stat(s); err == nil {
			t.Logf("the journal of one pod with one container: %d bytes", info.Size())
		}
	}
}
