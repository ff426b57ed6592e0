package traced_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// script writes a shell script into the rig and returns its path.
func script(t *testing.T, in *traced.Install, name, text string) string {
	t.Helper()
	path := filepath.Join(in.Rig.Dir, name)
	check(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	return path
}

// tool is the directory of a built tool. The rig has found it there before, or
// skips the test.
func tool(t *testing.T, what toolset.Tool) string {
	t.Helper()
	root, err := toolset.Root()
	check(t, err)
	return what.Dir(root)
}
