// Command shimtrace is the operator's tool: it installs the tracing shim, lists and
// shows what was traced on this host, and ships it to a collector.
//
// It reads the journal beside the relays that write it, without holding them up. Only
// collect, which relays also start, and forward ship the journal or write to it.
package main

import (
	"context"
	"io"
	"log"
	"os"
)

func main() {
	log.SetOutput(io.Discard) // net/http logs what strangers send; errors are reported
	os.Exit(run(context.Background(), system(), os.Args))
}
