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

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust"
)

// Build builds the agent, or finds it built, and returns the program's path.
func Build(ctx context.Context) (string, error) { return rust.Build(ctx, "agent") }

// Program is Build for a test, which is skipped where there is no cargo, or
// fails if CI is set.
func Program(t rig.TB) string {
	t.Helper()
	return rust.Program(t, "agent")
}
