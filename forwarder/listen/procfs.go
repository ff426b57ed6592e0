package listen

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// procFS is a proc file system. What cannot be read counts as not there:
// processes come and go.
type procFS string

const (
	// maxProcesses bounds the descendants looked at. A shim of VMs has a handful.
	maxProcesses = 1024
	// maxCommandLine bounds a command line in bytes. QEMU's has some 5 kB.
	maxCommandLine = 128 << 10
	// maxChildren bounds a list of children in bytes.
	maxChildren = 16 << 10
)

func (p procFS) path(pid int, elem ...string) string {
	return filepath.Join(append([]string{string(p), strconv.Itoa(pid)}, elem...)...)
}

// descendants returns the processes below pid, parents first. A child belongs to
// the thread that started it.
func (p procFS) descendants(pid int) []int {
	if pid <= 0 {
		return nil
	}
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < maxProcesses; i++ {
		lists, _ := filepath.Glob(p.path(all[i], "task", "*", "children"))
		for _, list := range lists {
			for field := range bytes.FieldsSeq(readBounded(list, maxChildren)) {
				if child, err := strconv.Atoi(string(field)); err == nil && len(all) < maxProcesses {
					all = append(all, child)
				}
			}
		}
	}
	return all[1:]
}

// all returns all processes.
func (p procFS) all() (pids []int) {
	dir, err := os.Open(string(p))
	if err != nil {
		return nil
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				pids = append(pids, pid)
			}
		}
		if err != nil {
			return pids
		}
	}
}

// args returns a process's command line.
func (p procFS) args(pid int) [][]byte {
	return bytes.Split(readBounded(p.path(pid, "cmdline"), maxCommandLine), []byte{0})
}

// sameNamespace tells whether the process is in our own process namespace.
func (p procFS) sameNamespace(pid int) bool {
	ours, err := os.Readlink(filepath.Join(string(p), "self", "ns", "pid"))
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(p.path(pid, "ns", "pid"))
	return err == nil && theirs == ours
}

// ofRoot tells whether the process is root's, by its real user: what a process
// may do has no say in it.
func (p procFS) ofRoot(pid int) bool {
	for line := range bytes.Lines(readBounded(p.path(pid, "status"), 4<<10)) {
		var real uint32
		if n, _ := fmt.Sscanf(string(line), "Uid: %d", &real); n == 1 {
			return real == 0
		}
	}
	return false
}

// readBounded reads at most limit bytes of a file; nil if it cannot be read.
func readBounded(path string, limit int64) []byte {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil
	}
	return b
}
