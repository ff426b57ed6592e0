// Package rust builds the programs of the directories below, which are written in
// Rust because what they stand for is, and says where they are.
package rust

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// errNoCargo says that there is no Rust toolchain to build with.
var errNoCargo = errors.New("cargo is missing: programs for tests cannot be built; install Rust (rustup.rs)")

// Build builds the program of that name, or finds it built, and returns its path. The
// first build takes minutes and says so on standard error. What it makes is kept
// outside the tree, in a directory per set of dependencies; cargo itself keeps two
// builds at a time apart.
func Build(ctx context.Context, name string) (string, error) {
	if _, err := exec.LookPath("cargo"); err != nil {
		return "", errNoCargo
	}
	_, file, _, _ := runtime.Caller(0)
	source := filepath.Join(filepath.Dir(file), name)
	lock, err := os.ReadFile(filepath.Join(source, "Cargo.lock"))
	if err != nil {
		return "", fmt.Errorf("build the %s for tests: %w", name, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("build the %s for tests: %w", name, err)
	}
	host, err := hostTarget(ctx)
	if err != nil {
		return "", fmt.Errorf("build the %s for tests: %w", name, err)
	}
	target := filepath.Join(cache, "shimtrace", "rust", fmt.Sprintf("%s-%.6x", name, sha256.Sum256(lock)))
	program := filepath.Join(target, host, "release", name)
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintf(os.Stderr, "building the %s for tests in %s\n", name, target)
		defer func(start time.Time) {
			fmt.Fprintf(os.Stderr, "built the %s for tests in %s\n", name, time.Since(start).Round(time.Second))
		}(time.Now())
	}
	// With a target named, the flags are for it alone and not for macros, which
	// cannot be static.
	cmd := exec.CommandContext(ctx, "cargo", "build", "--release", "--locked", "--quiet", "--target", host)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+target, "RUSTFLAGS=-C target-feature=+crt-static")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the %s for tests: cargo in %s: %w\n%s", name, source, err, out)
	}
	return program, nil
}

// hostTarget is the name that Rust has for this machine.
func hostTarget(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "rustc", "-vV").Output()
	if err != nil {
		return "", fmt.Errorf("rustc -vV: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if host, ok := strings.CutPrefix(line, "host: "); ok {
			return strings.TrimSpace(host), nil
		}
	}
	return "", fmt.Errorf("rustc -vV: no host in %s", out)
}

// Program is Build for a test, which is skipped where there is no cargo, or fails if
// CI is set.
func Program(t rig.TB, name string) string {
	t.Helper()
	program, err := Build(t.Context(), name)
	switch {
	case errors.Is(err, errNoCargo) && os.Getenv("CI") == "":
		t.Skipf("%v", err)
	case err != nil:
		t.Fatalf("%v", err)
	}
	return program
}
