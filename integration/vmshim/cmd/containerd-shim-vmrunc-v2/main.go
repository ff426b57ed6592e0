// Command containerd-shim-vmrunc-v2 is a shim shaped like Kata's, for tests; see
// package vmshim.
package main

import (
	"fmt"
	"os"

	"github.com/shimtrace/shimtrace/integration/vmshim"
)

func main() {
	if err := vmshim.Run(os.Args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[0], err)
		os.Exit(1)
	}
}
