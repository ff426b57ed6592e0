package rig

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

// A Process is a process of a rig.
type Process struct {
	PID  int
	Args []string
}

func (p Process) String() string { return strconv.Itoa(p.PID) + " " + strings.Join(p.Args, " ") }

// Shims lists the living shim processes, wrappers and their guard included: those whose
// program's name begins with containerd-shim, or is that of the guard.
func (r *Rig) Shims() []Process {
	var shims []Process
	for _, p := range r.Processes() {
		if name := filepath.Base(p.Args[0]); strings.HasPrefix(name, "containerd-shim") || name == shimname.RelayProgram {
			shims = append(shims, p)
		}
	}
	return shims
}

// Processes lists the living processes of the rig, those in containers too,
// but not containerd, and none that is only a copy of its parent.
func (r *Rig) Processes() []Process {
	var others []Process
	for _, p := range processes(r.Name) {
		if p.PID != r.Pid() && p.PID != r.space.cmd.Process.Pid && !testkit.Forked(p.PID) {
			others = append(others, p)
		}
	}
	return others
}

// processes finds every process of the rig of that name by what it has
// mounted: the rig's own /run, or a container's root in the rig's directory.
// Neither reparenting nor a namespace hides that, and no other process has it.
func processes(name string) []Process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var found []Process
	for _, dir := range dirs {
		mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if err != nil {
			continue // it has just ended
		}
		if s := string(mounts); !strings.Contains(s, "/"+name+"/run /run ") && !strings.Contains(s, "/"+name+"/root/") {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue // ended, or a zombie
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		found = append(found, Process{pid, args})
	}
	return found
}

// killAll ends the processes of the rig of that name and those they start
// meanwhile. It gives up after a few seconds and returns who is left.
func killAll(name string) []Process {
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := processes(name)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		for _, p := range left {
			unix.Kill(p.PID, unix.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
