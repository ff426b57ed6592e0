// Package client builds the client of the Kata agent that tests run, a Rust program
// in this directory, and says where it is.
//
// The program dials the agent and asks it as Kata's Rust runtime does; src/main.rs
// says how it is told what. This package does not run it.
package client

import (
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust"
)

// Program builds the client for a test, or finds it built, and returns the program's
// path. The test is skipped where there is no cargo, or fails if CI is set.
func Program(t rig.TB) string {
	t.Helper()
	return rust.Program(t, "client")
}
