package keeper

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KeptEnv names the file descriptors that a Keeper has left to a process, as numbers
// separated by spaces: the lock's, then those of Options.Files.
const KeptEnv = "SHIMTRACE_KEPT_FDS"

// firstKept is the first of these descriptors.
const firstKept = 3

// Inherited returns the lock and the other files that were left to this process; nil if
// there are none. It does not trust the environment: the descriptor must be the file at
// path, and this process must have its lock.
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
