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

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
	"github.com/shimtrace/shimtrace/internal/forwarder/vmmdir"
)

// Restore gives VMMs back the sockets whose places were taken by a process that has
// died. It connects to a socket to find out whether the process lives, and then leaves
// it alone. It does nothing where nothing was left behind.
func Restore(sandbox string, patterns []listen.Pattern) error {
	var errs []error
	for _, p := range patterns {
		socket, err := p.Socket(sandbox)
		if err != nil {
			return err
		}
		for path := range listen.Candidates(socket) {
			err := vmmdir.InsideLocked(filepath.Dir(path), func() error { return clearAway(filepath.Base(path)) })
			if err != nil && !errors.Is(err, errTaken) {
				errs = append(errs, fmt.Errorf("give %s back to its VMM: %w", path, err))
			}
		}
	}
	return errors.Join(errs...)
}

const prefix = ".shimtrace-"

// newName returns the name of our socket before it takes the place of name.
func newName(name string) string { return prefix + "new-" + name }

// hiddenName returns the name that the VMM's socket has while ours has its name. Ours
// has the hidden name just before the two are exchanged. The name contains our
// socket's inode number, which tells the two sockets apart after the process that
// knew has died.
func hiddenName(name string, own vmmdir.ID) string {
	return prefix + name + "-" + strconv.FormatUint(own.Ino, 10)
}

// maxNames bounds the names read of a directory. A VMM has a dozen files.
const maxNames = 4096

// clearAway undoes, at name in the locked working directory, what dead processes have
// left behind. It fails with errTaken if such a process lives.
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
	for _, hidden := range names {
		ino, err := strconv.ParseUint(hidden[len(prefix+name+"-"):], 10, 64)
		if err != nil {
			continue // belongs to a longer name with the same beginning
		}
		if err := clearHidden(hidden, name, ino); err != nil {
			return err
		}
	}
	return nil
}

// clearHidden handles one leftover name. If name has the inode number ino, it is our
// socket and the leftover is the VMM's. Otherwise the leftover is stale: ours that
// never got the name, or the socket of a VMM that has removed it.
func clearHidden(hidden, name string, ino uint64) error {
	id, _, err := vmmdir.Identify(name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err != nil || id.Ino != ino {
		return vmmdir.Remove(hidden)
	}
	if err := vmmdir.Connect(name); !errors.Is(err, unix.ECONNREFUSED) {
		return errTaken
	}
	return giveName(hidden, name, id)
}

// giveName gives the VMM's socket at the hidden name its own name back, which our socket has, and
// removes ours. A VMM does not take our lock: if it has just bound another socket
// there, that one stays.
func giveName(hidden, name string, own vmmdir.ID) error {
	var unlike error // does not keep the VMM from its name
	if id, st, err := vmmdir.Identify(name); err == nil && id == own {
		unlike = like(hidden, st)
	}
	err := exchange(hidden, name)
	switch {
	case errors.Is(err, unix.ENOENT):
		return vmmdir.Remove(hidden) // the VMM has removed its name
	case err != nil:
		return err
	}
	if id, _, err := vmmdir.Identify(hidden); err != nil || id != own {
		if err := exchange(hidden, name); err != nil {
			return err
		}
	}
	return errors.Join(unlike, vmmdir.Remove(hidden))
}
