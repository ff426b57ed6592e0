package interpose

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
	"github.com/shimtrace/shimtrace/internal/host"
)

// Restore gives sockets back whose places were taken by a process that died. What
// a living process has taken it leaves alone, but learns that by connecting. It
// does nothing where nothing was left.
func Restore(sandbox string, patterns []listen.Pattern) error {
	var errs []error
	for _, p := range patterns {
		socket, err := p.Socket(sandbox)
		if err != nil {
			return err
		}
		for path := range listen.Candidates(socket) {
			err := inLockedDir(filepath.Dir(path), func() error { return clearAway(filepath.Base(path)) })
			if err != nil && !errors.Is(err, errTaken) {
				errs = append(errs, fmt.Errorf("give %s back to its VMM: %w", path, err))
			}
		}
	}
	return errors.Join(errs...)
}

// lockPatience is how long others may have a directory locked: what they do there
// takes no time.
const lockPatience = 200 * time.Millisecond

// inLockedDir calls f inside a directory and alone; if there is none, there is
// nothing to do.
func inLockedDir(path string, f func() error) error {
	dir, err := vmmdir.Open(path)
	if errors.Is(err, vmmdir.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Inside(func() error {
		for end := time.Now().Add(lockPatience); ; time.Sleep(time.Millisecond) {
			err := dir.Lock()
			if err == nil {
				return f()
			}
			if !errors.Is(err, host.ErrLocked) || time.Now().After(end) {
				return err
			}
		}
	})
}

const prefix = ".shimtrace-"

// newName is what a socket of ours is called before it takes the place of name.
func newName(name string) string { return prefix + "new-" + name }

// asideName is what the VMM's socket is called while ours has its name, and ours
// just before. The number is ours: it tells the two apart when nobody is left who
// knows.
func asideName(name string, own vmmdir.ID) string {
	return prefix + name + "-" + strconv.FormatUint(own.Ino, 10)
}

// maxNames bounds how much of a directory is read. A VMM has a dozen files.
const maxNames = 4096

// clearAway undoes at name, in the locked working directory, what processes have
// left behind that died. It fails with errTaken if one lives.
func clearAway(name string) error {
	if err := vmmdir.Remove(newName(name)); err != nil {
		return err
	}
	dir, err := os.Open(".")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(maxNames)
	dir.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix+name+"-") })
	for _, aside := range names {
		ino, err := strconv.ParseUint(aside[len(prefix+name+"-"):], 10, 64)
		if err != nil {
			continue // of a name that begins like this one
		}
		if err := clearAside(aside, name, ino); err != nil {
			return err
		}
	}
	return nil
}

// clearAside handles one leftover name. If the inode in the name is the one at name,
// that one is ours and the leftover is the VMM's socket; otherwise the leftover is stale:
// ours that never got the name, or that of a VMM that has removed it.
func clearAside(aside, name string, ino uint64) error {
	id, _, err := vmmdir.Identify(name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err != nil || id.Ino != ino {
		return vmmdir.Remove(aside)
	}
	if err := vmmdir.Connect(name); !errors.Is(err, unix.ECONNREFUSED) {
		return errTaken
	}
	return giveName(aside, name, id)
}

// giveName gives the VMM's socket at aside the name of ours, which has the identity. A
// VMM, which knows nothing of our lock, may have put another socket there just now: that
// one stays.
func giveName(aside, name string, own vmmdir.ID) error {
	var unlike error // which keeps the VMM from no name
	if id, st, err := vmmdir.Identify(name); err == nil && id == own {
		unlike = like(aside, st)
	}
	err := exchange(aside, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return vmmdir.Remove(aside) // the VMM has removed its name
	case err != nil:
		return err
	}
	if id, _, err := vmmdir.Identify(aside); err != nil || id != own {
		if err := exchange(aside, name); err != nil {
			return err
		}
	}
	return errors.Join(unlike, vmmdir.Remove(aside))
}
