package containerd

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Daemon is a containerd that runs.
type Daemon struct {
	PID int
	// Program is the file that it executes, as its own mount namespace calls it.
	Program string
	// Config is the configuration file that its command line names, empty if it names
	// none; Address is the socket that it names.
	Config, Address string
	// Path is its PATH, where it finds shims.
	Path []string
	// Started is when it was started, the zero time if that is not known.
	Started time.Time
}

const name = "containerd"

// Find returns the containerds of root's that run in our mount namespace: those of other
// namespaces, such as one in a container, have files of their own.
func Find(proc host.Proc) (all []Daemon) {
	ours, err := host.FileOf(filepath.Join(string(proc), "self/ns/mnt"))
	if err != nil {
		return nil
	}
	for _, pid := range proc.All() {
		args := proc.Args(pid)
		if len(args) == 0 || filepath.Base(string(args[0])) != name {
			continue // cheap, and any process can have that name: root's are looked at
		}
		dir := filepath.Join(string(proc), strconv.Itoa(pid))
		mounts, err := host.FileOf(filepath.Join(dir, "ns/mnt"))
		if p, perr := proc.Process(pid); err != nil || perr != nil || mounts != ours || !p.RunsAs(0) {
			continue
		}
		d := Daemon{PID: pid, Config: flag(args, "-c", "--config"), Address: flag(args, "-a", "--address"), Started: started(proc, pid)}
		d.Program, _ = os.Readlink(filepath.Join(dir, "exe"))
		d.Path = filepath.SplitList(variable(filepath.Join(dir, "environ"), "PATH"))
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Daemon) int { return a.PID - b.PID })
	return all
}

// flag returns the value of an option on a command line.
func flag(args [][]byte, names ...string) string {
	for i, a := range args {
		option, value, has := strings.Cut(string(a), "=")
		if !slices.Contains(names, option) {
			continue
		}
		if has {
			return value
		}
		if i+1 < len(args) {
			return string(args[i+1])
		}
	}
	return ""
}

// variable returns a variable of a process's environment.
func variable(environ, name string) string {
	text, err := os.ReadFile(environ)
	if err != nil {
		return ""
	}
	for _, v := range bytes.Split(text, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
			return string(value)
		}
	}
	return ""
}

// ticks is the unit of a process's start: Linux's USER_HZ, the same everywhere.
const ticks = 100

func started(proc host.Proc, pid int) time.Time {
	since, err := proc.Start(pid)
	var now unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(since)*time.Second/ticks - time.Duration(now.Nano()))
}
