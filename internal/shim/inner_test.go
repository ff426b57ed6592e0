package shim

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/shim/command"
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
		if got, err := called(tt.link).findInner(config.Config{Shim: tt.configured}, slog.New(slog.DiscardHandler)); err != nil || filepath.Base(got) != tt.want {
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
	if got, err := called(filepath.Join(before, "containerd-shim-runc-v2")).findInner(config.Config{}, slog.New(slog.DiscardHandler)); got != filepath.Join(dir, "containerd-shim-runc-v2") {
		t.Errorf("in its place, runc's shim is %q (%v)", got, err)
	}
	t.Setenv("PATH", before)
	if got, err := called("containerd-shim-runc-v2").findInner(config.Config{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "is shimtrace itself") {
		t.Errorf("without the real one, runc's shim is %q (%v)", got, err)
	}
	for link, want := range map[string]string{
		"containerd-shim-traced-v2":        "which shim to wrap is said by the program's name",
		"containerd-shim-runsc-traced-v2":  "containerd-shim-runsc-v2, is neither on PATH",
		"containerd-shim-nobody-traced":    "containerd-shim-nobody or containerd-shim-nobody-v2, is neither",
		"containerd-shim-nobody-traced-v1": "[runtime.nobody]",
	} {
		if _, err := called(link).findInner(config.Config{}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q in it", link, err, want)
		}
	}
}

// TestKnownPlaces: each class of Kata has the shim of its own installation, of the
// runtime that it is for.
func TestKnownPlaces(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"opt/kata/bin", "opt/kata/runtime-rs/bin", "opt/kata-dev/bin", "opt/kata-dev/runtime-rs/bin", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, dir, "containerd-shim-kata-v2"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", "")
	for inner, want := range map[string]string{
		"kata":                     "opt/kata/bin",
		"kata-qemu":                "opt/kata/bin",
		"kata-clh":                 "opt/kata/bin",
		"kata-qemu-runtime-rs":     "opt/kata/runtime-rs/bin",
		"kata-dragonball":          "opt/kata/runtime-rs/bin",
		"kata-cloud-hypervisor":    "opt/kata/runtime-rs/bin",
		"kata-qemu-dev":            "opt/kata-dev/bin",
		"kata-qemu-runtime-rs-dev": "opt/kata-dev/runtime-rs/bin",
		"kata-qemu-development":    "opt/kata/bin",
	} {
		name := called("containerd-shim-" + inner + "-traced-v2").Wrapped()
		path, _ := lookUp(innerFiles(name), "/nobody", knownPlaces(root, inner)...)
		if got, _ := filepath.Rel(root, filepath.Dir(path)); got != want {
			t.Errorf("%s: %q, want %s", inner, got, want)
		}
	}
	if path, _ := lookUp(innerFiles(called("containerd-shim-runc-traced-v2").Wrapped()), "/nobody", knownPlaces(root, "runc")...); path != "" {
		t.Errorf("runc is %s", path)
	}
}

// called is the shim, called by a name.
func called(program string) wrapper { return wrapper{command.Line{Program: program}} }
