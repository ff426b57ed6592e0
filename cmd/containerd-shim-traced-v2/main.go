// Command containerd-shim-traced-v2 is a runtime v2 shim for containerd that
// wraps another one and traces it. It is run by containerd, under a name that says
// which shim to wrap: containerd-shim-runc-traced-v2 wraps containerd-shim-runc-v2.
package main

import (
	"os"

	"github.com/shimtrace/shimtrace/internal/shim"
)

func main() { os.Exit(shim.Run(os.Args)) }
