// Package tempdir makes the directories of tests that are not one test's alone, or that need a
// short name, and removes what tests that were killed have left.
package tempdir

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// prefix begins their names. It is short: there are sockets below, whose paths have room for
// 107 bytes.
const prefix = "shim."

var (
	swept sync.Once
	mu    sync.Mutex
	owned = make(map[string]*os.File) // whose locks this process has
)

// Make makes a directory below [os.TempDir], closed to other users, and the first time removes
// those of processes that are gone: each has the locks of its own.
func Make() (string, error) {
	swept.Do(sweep)
	for {
		dir, err := os.MkdirTemp("", prefix)
		if err != nil {
			return "", err
		}
		f, err := os.Open(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue // another process was faster, and took it for one that is left
		}
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			f.Close()
			continue
		}
		mu.Lock()
		owned[dir] = f
		mu.Unlock()
		return dir, nil
	}
}

// Remove removes a directory that Make has made.
func Remove(dir string) error {
	mu.Lock()
	defer mu.Unlock()
	if f := owned[dir]; f != nil {
		defer f.Close()
		delete(owned, dir)
	}
	return os.RemoveAll(dir)
}

// sweep removes the directories that nobody has.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		f.Close()
	}
}
