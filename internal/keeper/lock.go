package keeper

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KeptEnv tells a process which file descriptors a Keeper has left to it, as
// numbers with spaces between: the lock's, then those of Options.Files.
const KeptEnv = "SHIMTRACE_KEPT_FDS"

// firstKept is the first of these descriptors.
const firstKept = 3

// Inherited returns the lock that was left to this process, and the other files; no
// lock if there is none. It takes nobody's word for it: the descriptor must be the
// file at path, and its lock must be ours.
func Inherited(path string) (lock *os.File, files []*os.File) {
	var fds []int
	for field := range strings.FieldsSeq(os.Getenv(KeptEnv)) {
		fd, err := strconv.Atoi(field)
		if err != nil || fd < firstKept {
			return nil, nil
		}
		fds = append(fds, fd)
	}
	if len(fds) == 0 {
		return nil, nil
	}
	os.Unsetenv(KeptEnv)
	var have, want unix.Stat_t
	if unix.Fstat(fds[0], &have) != nil || unix.Stat(path, &want) != nil ||
		have.Dev != want.Dev || have.Ino != want.Ino ||
		unix.Flock(fds[0], unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil, nil
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files[0], files[1:]
}
