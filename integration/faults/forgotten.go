package faults

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/traced"
)

// deaf is how long after a SIGTERM a shim counts as one that does not hear it.
const deaf = 10 * time.Second

// ClearForgotten removes what a killed containerd has left of the containers that it cut
// off: their inner shims, which their relays have to follow, processes, cgroups, bundles
// and runc's state. It has to be called until all shims are gone.
//
// Bare shims leave the same. A containerd that is killed before it has noted the shim's
// address, or while the shim creates the task, removes the bundle at its next start, and
// not the shim (loadShim in core/runtime/v2/shim_load.go, 2.4.2). The shim's `delete`
// then finds no pid file, or a runc that is still at work, and leaves the cgroup.
func (l *Load) ClearForgotten() {
	for _, p := range l.in.Rig.Shims() {
		i := slices.Index(p.Args, "-id")
		if i < 0 || i+1 == len(p.Args) || traced.Relay.Is(p) || traced.Guard.Is(p) {
			continue
		}
		if l.isCutOff(p.Args[i+1]) {
			told, again := l.forgotten[p.PID]
			if !again {
				l.t.Logf("containerd has forgotten a shim, which is ended: %s", p)
				l.forgotten[p.PID] = time.Now()
				_ = unix.Kill(p.PID, unix.SIGTERM)
			} else if time.Since(told) > deaf {
				_ = unix.Kill(p.PID, unix.SIGKILL)
			}
		}
	}
	rig := l.in.Rig
	for _, id := range l.allCutOff() {
		for _, pattern := range []string{
			filepath.Join("/sys/fs/cgroup", rig.Name, id),
			filepath.Join("/sys/fs/cgroup/*", rig.Name, id),
			filepath.Join(rig.Dir, "state/io.containerd.runtime.v2.task", rig.Name, id),
			filepath.Join(rig.Dir, "state/io.containerd.runtime.v2.task", rig.Name, "."+id),
			filepath.Join(rig.Dir, "run/containerd/runc", rig.Name, id),
		} {
			left, _ := filepath.Glob(pattern)
			for _, dir := range left {
				killAll(filepath.Join(dir, "cgroup.procs"))
				_ = unix.Unmount(filepath.Join(dir, "rootfs"), unix.MNT_DETACH)
				removeTree(dir)
			}
		}
	}
}

// killAll kills the processes of a cgroup, if it is one.
func killAll(procs string) {
	pids, _ := os.ReadFile(procs)
	for _, field := range strings.Fields(string(pids)) {
		if pid, err := strconv.Atoi(field); err == nil {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// removeTree removes a directory that may be a cgroup, whose files can't be removed, and
// never what is mounted in it.
func removeTree(dir string) {
	var dirs []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.IsDir():
			dirs = append(dirs, path)
		default:
			_ = os.Remove(path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		_ = unix.Rmdir(dir)
	}
}

func (l *Ledger) cutOff(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupted = append(l.interrupted, id)
}

func (l *Ledger) isCutOff(id string) bool { return slices.Contains(l.allCutOff(), id) }

func (l *Ledger) allCutOff() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.interrupted)
}
