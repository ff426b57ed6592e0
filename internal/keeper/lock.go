package keeper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/private"
)

// ErrHeld is returned by Lock while another process holds the lock.
var ErrHeld = errors.New("another process holds the lock")

// Lock takes the lock of the one process that does the thing; the file is made if
// need be, its directory is not. It is held until the file is closed, here and in
// every process that has inherited it. It does not wait.
func Lock(path string) (*os.File, error) {
	f, err := private.Open(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrHeld
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

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
