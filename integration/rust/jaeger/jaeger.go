// Package jaeger builds a stand-in for Kata's Rust runtime that traces itself, a Rust
// program in this directory, and says where it is.
//
// The program posts its spans to a Jaeger endpoint with the crates that runtime-rs
// uses; src/main.rs says how it is told where. This package does not run it.
package jaeger

import (
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust"
)

// Program builds the program for a test, or finds it built, and returns its path. The
// test is skipped where there is no cargo, or fails if CI is set.
func Program(t rig.TB) string {
	t.Helper()
	return rust.Program(t, "jaeger")
}
