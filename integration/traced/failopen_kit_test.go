package traced_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// tool is the directory of a built tool. The rig has found it there before, or
// skips the test.
func tool(t *testing.T, what toolset.Tool) string {
	t.Helper()
	root, err := toolset.Root()
	check(t, err)
	return what.Dir(root)
}

// realShim is the runc shim that comes with the install's containerd.
func realShim(t *testing.T, v rig.Version) string {
	t.Helper()
	return filepath.Join(tool(t, rig.Tools[v]), "containerd-shim-runc-v2")
}

// script writes a shell script and returns its path.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755))
	return path
}

// configure replaces shimtrace's configuration, which every command of the shim
// reads anew.
func configure(t *testing.T, in *traced.Install, text string) {
	t.Helper()
	check(t, os.WriteFile(in.Config, []byte(text), 0o600))
}

// wrapping is a configuration with another inner shim than runc's.
func wrapping(in *traced.Install, inner, more string) string {
	return fmt.Sprintf("%s[journal]\ndir = %q\n[runtime.runc]\nshim = %q\n%s", traced.Patient, in.Journal, inner, more)
}

// runsUntraced tells that a container runs, as told by itself and its exit status, and
// goes without a relay.
func runsUntraced(t *testing.T, in *traced.Install, runtime, id string) {
	t.Helper()
	r := in.Rig
	res := r.CtrHearing([]string{"out", "err"}, "run", "--rm", "--runtime", runtime, image.Busybox, id, "sh", "-c", "echo out; echo err >&2"+rig.Hear+"; exit 7")
	if res.Err != nil || res.Code != 7 || res.Out() != "out" || !strings.Contains(res.Stderr, "err\n") {
		t.Errorf("the container did not run as it should: %v", res.Check())
	}
	check(t, r.Ctr("run", "--detach", "--runtime", runtime, image.Busybox, id, "sleep", "1000").Check())
	if n := len(inners(r)); n != 1 {
		t.Errorf("%d runc shims, want 1: %v", n, r.Shims())
	}
	if left := relays(r); len(left) > 0 {
		t.Errorf("relays that relay nothing: %v", left)
	}
	check(t, r.Ctr("tasks", "exec", "--exec-id", "e", id, "true").Check())
	if res := r.Ctr("tasks", "delete", "--force", id); res.Err != nil {
		t.Error(res.Err)
	}
	check(t, r.Ctr("containers", "delete", id).Check())
	until(t, "the shim to end", func() bool { return len(r.Shims()) == 0 })
	settle(t, in)
}
