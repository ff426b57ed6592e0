// Package agent builds the Kata agent that tests run, a Rust program in this
// directory, and says where it is.
//
// The program serves the agent's RPCs and sends spans as the agent does, with
// the crates that the agent uses; `agent --help` and src/main.rs say how. It is
// linked statically, so it runs in a guest that has no libraries too. This
// package does not run it.
package agent

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

// ErrNoCargo says that there is no Rust toolchain to build with.
var ErrNoCargo = errors.New("cargo is missing: the test agent cannot be built; install Rust (rustup.rs)")

// Build builds the agent, or finds it built, and returns the program's path. The
// first build takes minutes and says so on standard error. What it makes is kept
// outside the tree, in a directory per set of dependencies; cargo itself keeps
// two builds at a time apart.
func Build(ctx context.Context) (string, error) {
	if _, err := exec.LookPath("cargo"); err != nil {
		return "", ErrNoCargo
	}
	_, file, _, _ := runtime.Caller(0)
	source := filepath.Dir(file)
	lock, err := os.ReadFile(filepath.Join(source, "Cargo.lock"))
	if err != nil {
		return "", fmt.Errorf("build the test agent: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("build the test agent: %w", err)
	}
	host, err := hostTarget(ctx)
	if err != nil {
		return "", err
	}
	target := filepath.Join(cache, "shimtrace", "rust", fmt.Sprintf("agent-%.6x", sha256.Sum256(lock)))
	program := filepath.Join(target, host, "release", "agent")
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintf(os.Stderr, "building the test agent in %s\n", target)
		defer func(start time.Time) {
			fmt.Fprintf(os.Stderr, "built the test agent in %s\n", time.Since(start).Round(time.Second))
		}(time.Now())
	}
	// With a target named, the flags are for it alone and not for macros, which
	// cannot be static.
	cmd := exec.CommandContext(ctx, "cargo", "build", "--release", "--locked", "--quiet", "--target", host)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+target, "RUSTFLAGS=-C target-feature=+crt-static")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the test agent: cargo in %s: %w\n%s", source, err, out)
	}
	return program, nil
}

// hostTarget is the name that Rust has for this machine.
func hostTarget(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "rustc", "-vV").Output()
	if err != nil {
		return "", fmt.Errorf("build the test agent: rustc -vV: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		if host, ok := strings.CutPrefix(line, "host: "); ok {
			return strings.TrimSpace(host), nil
		}
	}
	return "", fmt.Errorf("build the test agent: no host in the output of rustc -vV: %s", out)
}

// Program is Build for a test, which is skipped where there is no cargo, or
// fails if CI is set.
func Program(t rig.TB) string {
	t.Helper()
	program, err := Build(t.Context())
	switch {
	case errors.Is(err, ErrNoCargo) && os.Getenv("CI") == "":
		t.Skipf("%v", err)
	case err != nil:
		t.Fatalf("%v", err)
	}
	return program
}
