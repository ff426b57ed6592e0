// Command shimtrace is the operator's tool: it installs the tracing shim, lists
// and shows what was traced on this host, and ships it to a collector.
//
// It reads the journal that the relays write, beside them and without holding
// them up; only ship, which they also start by themselves, moves anything.
package main

import (
	"context"
	"io"
	"log"
	"os"
)

func main() {
	log.SetOutput(io.Discard) // net/http's own lines, of what strangers send; errors are reported
	os.Exit(run(context.Background(), system(), os.Args))
}
