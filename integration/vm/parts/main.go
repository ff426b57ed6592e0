// Command parts gets what guests are made of and packages do not have: a kernel,
// and the program behind a hybrid VSOCK. Run it before the tests:
//
//	go -C integration run ./vm/parts
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/shimtrace/shimtrace/integration/vm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := vm.Get(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "parts:", err)
		os.Exit(1)
	}
}
