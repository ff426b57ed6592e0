package packages

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestRPM: the package is installed in a root of its own, where its programs run, is
// updated, and when it is erased nothing of it is left.
func TestRPM(t *testing.T) {
	if os.Getenv("CI") == "" {
		if _, err := exec.LookPath("rpm"); err != nil || os.Geteuid() != 0 {
			t.Skip("needs rpm, and root (make deps)")
		}
	}
	file := built(t, "*."+map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]+".rpm")
	root := newRoot(t)
	// What a package of the distribution has.
	for _, dir := range []string{
		"usr/lib/systemd/system", "usr/share/man/man1", "usr/share/man/man5", "usr/share/doc",
		"usr/share/bash-completion/completions", "usr/share/zsh/site-functions", "usr/share/fish/vendor_completions.d", "var/lib/rpm", "var/tmp",
	} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, root)
	rpm(t, root, "--install", file)
	if out := rpm(t, root, "--verify", "shimtrace"); out != "" {
		t.Errorf("installed, it is not what the package has:\n%s", out)
	}

	if out := chroot(t, root, "shimtrace", "install", "--containerd"); !strings.Contains(out, "containerd has the handlers: runc-traced") {
		t.Errorf("install says:\n%s", out)
	}
	packaged(t, root)
	installed := tree(t, root)

	// An update runs the old package's scripts, too: what was installed for containerd stays.
	rpm(t, root, "--upgrade", "--replacepkgs", file)
	same(t, root, installed)

	rpm(t, root, "--erase", "shimtrace")
	same(t, root, before)
}

// rpm runs the machine's rpm on the root, where it also runs the package's scripts.
func rpm(t *testing.T, root string, args ...string) string {
	t.Helper()
	// The root's shell is no package.
	args = append([]string{"--root", root, "--dbpath", "/var/lib/rpm", "--nodeps"}, args...)
	out, err := exec.CommandContext(t.Context(), "rpm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("rpm %s: %v: %s", args, err, out)
	}
	return string(out)
}
