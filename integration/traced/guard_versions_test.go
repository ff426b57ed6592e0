package traced_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// previousDir is what TestMain removes.
var previousDir string

// previous is the directory with the shim of the commit before this tree's: from the
// repository's history.
var previous = sync.OnceValues(func() (dir string, err error) {
	if dir, err = tempdir.Make(); err != nil {
		return "", err
	}
	previousDir = dir
	const script = `set -e
cd "$1"
mkdir "$2/tree"
git archive HEAD~1 | tar x -C "$2/tree"
cd "$2/tree"
CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags '-s -w' -o "$2/" $(ls -d ./cmd/containerd-shim-traced-v2 ./cmd/shimtrace-relay 2>/dev/null)
rm -rf "$2/tree"`
	out, err := exec.Command("bash", "-o", "pipefail", "-c", script, "bash", traced.Root(), dir).CombinedOutput()
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return dir, nil
})

// previousShim returns the shim of the commit before this one.
func previousShim(t *testing.T) string {
	t.Helper()
	dir, err := previous()
	if err != nil {
		if exec.Command("git", "-C", traced.Root(), "rev-parse", "--verify", "--quiet", "HEAD~1").Run() != nil {
			t.Skip("a clone without history has no previous commit")
		}
		t.Fatal("the previous commit's shim cannot be built: ", err)
	}
	return filepath.Join(dir, shimname.Program)
}

// Versions that follow each other understand each other: relays and guards of one become
// the other's and back, while their containers run. One that cannot take over is refused
// before anything is touched.
func TestUpgradeFromAndToThePreviousCommit(t *testing.T) {
	old := previousShim(t)
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		ended := execing(t, r, "c1", "e1")
		guarded(t, r, func(guard.Status) bool { return true })
		for _, to := range []string{old, filepath.Join(in.Bin, shimname.Program)} {
			res := shimtrace(t, in, "upgrade", "--program", to)
			refused := strings.Contains(res.Stdout+res.Stderr, "version") || strings.Contains(res.Stderr, "cannot take relays over")
			if res.Code == 1 && to == old && refused {
				t.Log("refused: ", res.Stdout, res.Stderr) // and all goes on as it was
				check(t, r.Ctr("tasks", "exec", "--exec-id", "e2", "c1", "true").Check())
				continue
			}
			check(t, res.Check())
			now, pid := guarded(t, r, func(guard.Status) bool { return true })
			for what, pid := range map[string]int{"relay": now.PID, "guard": pid} {
				if !executes(t, pid, to) {
					t.Errorf("the %s does not execute %s", what, to)
				}
			}
			check(t, r.Ctr("tasks", "exec", "--exec-id", "e2", "c1", "true").Check())
			if next := killRelay(t, r); to != old && !executes(t, next.PID, to) {
				t.Errorf("the relay that goes on does not execute %s", to)
			}
		}
		if res := shimtrace(t, in, "upgrade", "--program", "/bin/true"); res.Code != 1 || !strings.Contains(res.Stderr, "cannot take relays over") {
			t.Errorf("another program is taken: %d, %s", res.Code, res.Stderr)
		}
		check(t, r.Ctr("tasks", "exec", "--exec-id", "e3", "c1", "true").Check())
		ended()
		endOf(t, in, "c1")
	})
}

// executes reports whether a process executes the relays' program beside the shim, which
// was the shim itself once.
func executes(t *testing.T, pid int, shim string) bool {
	t.Helper()
	program := filepath.Join(filepath.Dir(shim), shimname.RelayProgram)
	if _, err := os.Stat(program); err != nil {
		program = shim
	}
	var exe, file unix.Stat_t
	check(t, unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "exe"), &exe))
	check(t, unix.Stat(program, &file))
	return exe.Dev == file.Dev && exe.Ino == file.Ino
}

// Guards that follow each other at once, as those of an update do, lose no relay.
func TestGuardsInTurn(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		r := in.Rig
		check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
		relay, _ := guarded(t, r, func(guard.Status) bool { return true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range 5 {
			check(t, guard.Replace(ctx, stateDir(r), filepath.Join(in.Bin, shimname.Program)))
			if now, _ := guarded(t, r, func(guard.Status) bool { return true }); now.PID != relay.PID {
				t.Fatal("the relay is another one")
			}
		}
		killRelay(t, r)
		endOf(t, in, "c1")
	})
}
