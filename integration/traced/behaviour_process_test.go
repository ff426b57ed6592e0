package traced_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// relays are the living relay processes, which say so in their arguments.
func relays(r *rig.Rig) []rig.Process { return traced.Find(r, traced.Relay) }

// inners are the living real shims.
func inners(r *rig.Rig) []rig.Process {
	return slices.DeleteFunc(r.Shims(), func(p rig.Process) bool {
		return filepath.Base(p.Args[0]) != "containerd-shim-runc-v2"
	})
}

// relayFiles are what relays have in the directory for their sockets.
func relayFiles(t *testing.T, r *rig.Rig) []string {
	t.Helper()
	return filesOfRelays(t, filepath.Join(r.Dir, "run/shimtrace/s"))
}

// filesOfRelays are the files in that directory, without the locks of starts, which stay.
func filesOfRelays(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	check(t, err)
	return slices.DeleteFunc(files, func(path string) bool {
		start, _ := filepath.Match("start-*.lock", filepath.Base(path))
		return start
	})
}

// settle waits until the relays of all that is over are gone, and with them their
// files, and the processes that record deletes.
func settle(t *testing.T, in *traced.Install) {
	t.Helper()
	until(t, "the relays to end", func() bool { return traced.ShimsEnded(in.Rig) })
	if files := relayFiles(t, in.Rig); len(files) > 0 {
		t.Errorf("no relay lives, but there are %q", files)
	}
}
