// Command containerd-shim-traced-v2 is a containerd runtime v2 shim that wraps another
// shim and traces it. containerd runs it under a name that says which shim to wrap:
// containerd-shim-runc-traced-v2 wraps containerd-shim-runc-v2.
package main

import (
	"os"

	"github.com/shimtrace/shimtrace/internal/shim"
)

func main() { os.Exit(shim.Run(os.Args)) }
