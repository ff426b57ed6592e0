package shim

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/config"
)

// TestFindInner looks for shims as their projects name them, with and without a
// version.
func TestFindInner(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for _, name := range []string{
		"containerd-shim-runc-v1", "containerd-shim-runc-v2", "containerd-shim-runsc-v1", "containerd-shim-spin-v2", "containerd-shim-aws-firecracker", "real",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ link, configured, want string }{
		{"containerd-shim-runc-traced-v2", "", "containerd-shim-runc-v2"},
		{"containerd-shim-runc-traced-v1", "", "containerd-shim-runc-v1"},
		{"containerd-shim-runc-traced", "", "containerd-shim-runc-v2"},
		{"containerd-shim-runsc-traced-v1", "", "containerd-shim-runsc-v1"},
		{"containerd-shim-spin-traced-v2", "", "containerd-shim-spin-v2"},
		{"containerd-shim-aws-firecracker-traced", "", "containerd-shim-aws-firecracker"},
		{"containerd-shim-kata-qemu-traced-v2", "real", "real"},
		{"containerd-shim-traced-v2", "real", "real"},
	} {
		name := wrapped(tt.link)
		if got, err := (command{}).findInner(config.Config{Shim: tt.configured}, name, slog.New(slog.DiscardHandler)); err != nil || filepath.Base(got) != tt.want {
			t.Errorf("%s wraps %q (%v), want %s", tt.link, got, err, tt.want)
		}
	}
	// In the place of the real one, before it on PATH.
	before := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(before, "containerd-shim-runc-v2")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", before+":"+dir)
	if got, err := (command{}).findInner(config.Config{}, wrapped(filepath.Join(before, "containerd-shim-runc-v2")), slog.New(slog.DiscardHandler)); got != filepath.Join(dir, "containerd-shim-runc-v2") {
		t.Errorf("in its place, runc's shim is %q (%v)", got, err)
	}
	t.Setenv("PATH", before)
	if got, err := (command{}).findInner(config.Config{}, wrapped("containerd-shim-runc-v2"), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is shimtrace itself") {
		t.Errorf("without the real one, runc's shim is %q (%v)", got, err)
	}
	for link, want := range map[string]string{
		"containerd-shim-traced-v2":        "which shim to wrap is said by the program's name",
		"containerd-shim-runsc-traced-v2":  "containerd-shim-runsc-v2, is neither on PATH",
		"containerd-shim-nobody-traced":    "containerd-shim-nobody or containerd-shim-nobody-v2, is neither",
		"containerd-shim-nobody-traced-v1": "[runtime.nobody]",
	} {
		name := wrapped(link)
		if _, err := (command{}).findInner(config.Config{}, name, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", link, err, want)
		}
	}
}
