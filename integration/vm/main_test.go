package vm_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/vm"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// programs is the directory of the guests' programs.
var programs string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := tempdir.Make()
	if err == nil {
		defer os.RemoveAll(dir)
		programs = dir
		err = vm.Build(context.Background(), dir, "./peer", "./relay")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func program(t *testing.T, name string) string {
	t.Helper()
	return filepath.Join(programs, name)
}

// patience bounds a wait for a guest, which is emulated.
const patience = 4 * time.Minute

// wait waits for a line, generously, and returns its submatches.
func wait(t *testing.T, g *vm.Guest, pattern string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	match, err := g.WaitLine(ctx, pattern)
	if err != nil {
		t.Fatal(err)
	}
	return match
}
