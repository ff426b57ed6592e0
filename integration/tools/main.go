// Command tools builds the programs that the integration tests need and prints
// the directory that holds them. Run it before the tests:
//
//	go -C integration run ./tools         # build what is missing
//	go -C integration run ./tools -list   # show what there is
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/shimtrace/shimtrace/integration/toolset"
)

func main() {
	list := flag.Bool("list", false, "print the table of tools and build nothing")
	backends := flag.Bool("backends", false, "also build what make test-backends needs, which takes minutes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *list, *backends); err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, list, backends bool) error {
	root, err := toolset.Root()
	if err != nil {
		return err
	}
	tools := toolset.All()
	if backends {
		tools = append(tools, toolset.Backends()...)
	}
	if list {
		return table(os.Stdout, root, tools)
	}
	if err := toolset.Build(ctx, root, tools, os.Stderr); err != nil {
		return err
	}
	fmt.Println(root)
	return nil
}

func table(w io.Writer, root string, tools []toolset.Tool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TOOL\tVERSION\tTAGS\tSOURCE\tDIRECTORY")
	for _, tool := range tools {
		dir := "not built"
		if tool.Built(root) {
			dir = tool.Dir(root)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", tool.Name, tool.Version, tool.Tags, tool.Source(), dir)
	}
	return t.Flush()
}
