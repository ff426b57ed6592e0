package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/toolset"
)

// TestForeign runs the programs for the other architecture, emulated.
func TestForeign(t *testing.T) {
	if !all {
		t.Skip("a release for another architecture: make test-release")
	}
	tools, err := toolset.Root()
	if err != nil {
		t.Fatal(err)
	}
	if err := toolset.Build(t.Context(), tools, []toolset.Tool{toolset.QEMUUser}, os.Stderr); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-xzf", built(t, "*_arm64.tar.gz"), "-C", dir, "--strip-components=1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	emulated := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(toolset.QEMUUser.Dir(tools), "qemu-aarch64-static"), append([]string{filepath.Join(dir, "usr/bin", name)}, args...)...)
		cmd.Env = []string{"SHIMTRACE_CONFIG=/dev/null", "PATH=/usr/local/bin:/usr/bin"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v: %s", name, args, err, out)
		}
		return string(out)
	}
	if out := emulated("shimtrace", "version"); !strings.Contains(out, "shimtrace 0.") || !strings.Contains(out, "linux/arm64") {
		t.Errorf("it is %s", out)
	}
	if out := emulated("shimtrace", "--help"); !strings.Contains(out, "explain") {
		t.Errorf("help is:\n%s", out)
	}
	host := t.TempDir()
	for name, text := range map[string]string{"etc/containerd/config.toml": "version = 2\n", "usr/bin/containerd-shim-runc-v2": "#!/bin/sh\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(host, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(host, "usr/local/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	before := tree(t, host)
	emulated("shimtrace", "install", "--containerd", "--root", host)
	emulated("shimtrace", "install", "--uninstall", "--root", host)
	same(t, host, before)
}
