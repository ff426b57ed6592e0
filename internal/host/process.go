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
	var room [maxStat]byte
	fields, err := statFields(room[:], p.path(pid, "stat"))
	if err != nil {
		return 0, 0, gone(err)
	}
	const ppid, startTime = 4 - 3, 22 - 3 // from the third field on
	if nthField(fields, startTime) == nil {
		return 0, 0, fmt.Errorf("process %d: its stat is none", pid)
	}
	if parent, err = strconv.Atoi(string(nthField(fields, ppid))); err != nil {
		return 0, 0, fmt.Errorf("process %d: its parent: %w", pid, err)
	}
	if start, err = strconv.ParseUint(string(nthField(fields, startTime)), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("process %d: its start: %w", pid, err)
	}
	return parent, start, nil
}

// statFields returns the fields of a stat file of /proc (proc_pid_stat(5)), from the third
// one on. It returns none if the file is none.
func statFields(room []byte, path string) ([]byte, error) {
	text, err := readInto(room, path)
	if err != nil {
		return nil, err
	}
	// The name before them, in parentheses, may contain anything, also parentheses.
	name := bytes.LastIndexByte(text, ')')
	if name < 0 {
		return nil, nil
	}
	return text[name+1:], nil
}

// nthField returns a word of a text, counted from 0; nil if there are fewer.
func nthField(text []byte, n int) []byte {
	for {
		text = bytes.TrimLeft(text, " \t\n")
		end := bytes.IndexAny(text, " \t\n")
		if end < 0 {
			end = len(text)
		}
		switch {
		case end == 0:
			return nil
		case n == 0:
			return text[:end]
		}
		text, n = text[end:], n-1
	}
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
	var room [maxStat]byte
	status, err := readInto(room[:], p.path(pid, "status"))
	if err != nil {
		return users, gone(err)
	}
	_, ids, _ := bytes.Cut(status, []byte("\nUid:"))
	for i := range users {
		id, err := strconv.ParseUint(string(nthField(ids, i)), 10, 32)
		if err != nil {
			return users, fmt.Errorf("process %d: its users are not in its status", pid)
		}
		users[i] = uint32(id)
	}
	return users, nil
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

// readInto reads the beginning of a file of /proc, as much as there is room for. The relays
// of a host with many processes read many: it leaves next to nothing on the heap.
func readInto(room []byte, path string) (text []byte, err error) {
	fd := -1
	for again := true; again; again = err == unix.EINTR {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	for len(text) < len(room) {
		n, err := unix.Read(fd, room[len(text):])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			break
		}
		text = room[:len(text)+n]
	}
	return text, nil
}
