// Command shimtrace-relay is the program of shimtrace's processes that live longer than one
// of the shim's commands: the relays, one per pod, and the host's guard. The shim,
// containerd-shim-traced-v2, starts it from its own directory.
package main

import (
	"os"

	"github.com/shimtrace/shimtrace/internal/shim/process"
)

func main() { os.Exit(process.Run(os.Args)) }
