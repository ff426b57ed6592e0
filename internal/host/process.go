package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Proc is the path of a proc file system, usually "/proc".
type Proc string

// File is a file's identity, whatever its names.
type File struct{ Dev, Ino uint64 }

// FileOf returns the identity of the file at path. It follows links.
func FileOf(path string) (File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return File{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return File{uint64(st.Dev), st.Ino}, nil
}

// Process is the state of a process when it was looked at.
type Process struct {
	PID int
	// Users are the real, effective, saved and file system uid.
	Users [4]uint32
	// Parent is the pid of the process that started it, or that adopted it when that one
	// ended.
	Parent int
	// Start is when it started, in clock ticks since the host's boot. With PID it is
	// unique (proc_pid_stat(5), starttime).
	Start uint64
	// Exe is the file that it executes, as the kernel has it open: a path may mean
	// another file in another mount namespace.
	Exe File
	// PIDNamespace is its process namespace.
	PIDNamespace File
}

// ErrGone means that there is no such process, or that it ended while it was looked at.
var ErrGone = errors.New("the process is gone")

// Process looks at a process. The error is ErrGone if there is none, or if its pid was
// reused meanwhile: the result is always of one process.
func (p Proc) Process(pid int) (Process, error) {
	got := Process{PID: pid}
	var err error
	if got.Parent, got.Start, err = p.Stat(pid); err != nil {
		return Process{}, err
	}
	if got.Users, err = p.users(pid); err != nil {
		return Process{}, err
	}
	if got.Exe, err = p.Exe(pid); err != nil {
		return Process{}, err
	}
	if got.PIDNamespace, err = FileOf(p.path(pid, "ns", "pid")); err != nil {
		return Process{}, gone(err)
	}
	if again, err := p.Start(pid); err != nil || again != got.Start {
		return Process{}, ErrGone
	}
	return got, nil
}

// RunsAs reports whether all four uids of the process are uid.
func (p Process) RunsAs(uid uint32) bool { return p.Users == [4]uint32{uid, uid, uid, uid} }

// Start returns when a process started, in clock ticks since the boot, or ErrGone.
func (p Proc) Start(pid int) (uint64, error) {
	_, start, err := p.Stat(pid)
	return start, err
}

// Stat returns a process's parent and start, as in Process.
func (p Proc) Stat(pid int) (parent int, start uint64, err error) {
	fields, err := statFields(p.path(pid, "stat"))
	if err != nil {
		return 0, 0, gone(err)
	}
	const ppid, startTime = 4 - 3, 22 - 3 // from the third field on
	if len(fields) <= startTime {
		return 0, 0, fmt.Errorf("process %d: its stat is none", pid)
	}
	if parent, err = strconv.Atoi(string(fields[ppid])); err != nil {
		return 0, 0, fmt.Errorf("process %d: its parent: %w", pid, err)
	}
	if start, err = strconv.ParseUint(string(fields[startTime]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("process %d: its start: %w", pid, err)
	}
	return parent, start, nil
}

// statFields returns the fields of a stat file of /proc (proc_pid_stat(5)), from the third
// one on. It returns none if the file is none.
func statFields(path string) ([][]byte, error) {
	text, err := readBounded(path, maxStat)
	if err != nil {
		return nil, err
	}
	// The name before them, in parentheses, may contain anything, also parentheses.
	name := bytes.LastIndexByte(text, ')')
	if name < 0 {
		return nil, nil
	}
	return bytes.Fields(text[name+1:]), nil
}

const (
	maxStat = 4 << 10
	// maxCommandLine bounds a command line, in bytes; QEMU's has some 5 kB.
	maxCommandLine = 128 << 10
)

// Args returns a process's command line, cut at 128 KiB; nil if it has none. The process
// can make it say anything.
func (p Proc) Args(pid int) [][]byte {
	text, err := readBounded(p.path(pid, "cmdline"), maxCommandLine)
	if err != nil || len(text) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(text, []byte{0}), []byte{0})
}

// All returns the pids of all processes.
func (p Proc) All() (pids []int) {
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

// Exe returns the file that a process executes, as in Process.
func (p Proc) Exe(pid int) (File, error) {
	file, err := FileOf(p.path(pid, "exe"))
	return file, gone(err)
}

// users reads the Uid line of /proc/PID/status.
func (p Proc) users(pid int) (users [4]uint32, err error) {
	status, err := readBounded(p.path(pid, "status"), maxStat)
	if err != nil {
		return users, gone(err)
	}
	for line := range bytes.Lines(status) {
		if n, _ := fmt.Sscanf(string(line), "Uid: %d %d %d %d", &users[0], &users[1], &users[2], &users[3]); n == len(users) {
			return users, nil
		}
	}
	return users, fmt.Errorf("process %d: its users are not in its status", pid)
}

func (p Proc) path(pid int, elem ...string) string {
	return filepath.Join(append([]string{string(p), strconv.Itoa(pid)}, elem...)...)
}

// gone turns the kernel's errors for processes that have ended into ErrGone.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	return err
}

// readBounded reads at most limit bytes of a file.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
