package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dirPrefix begins the names of the rigs' directories.
const dirPrefix = "shimrig-"

// own marks dir as belonging to this process for as long as it lives: a file
// with a lock that the kernel releases at our end. The file gets its name only
// when it is locked, so nobody finds it unlocked before.
func own(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "owner-")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, os.Rename(f.Name(), filepath.Join(dir, "owner"))
}

// sweep removes the rigs that an aborted process left: a test that ran into
// its timeout runs no cleanup, but its shims and containers go on.
func sweep() {
	owners, _ := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", "owner"))
	for _, path := range owners {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			// What resists is found again by the next sweep.
			_ = obliterate(filepath.Dir(path))
		}
		f.Close()
	}
}

// obliterate removes a rig by force: its processes, cgroups and directory.
// Its mounts and network go with the processes.
func obliterate(dir string) error {
	name := filepath.Base(dir)
	var errs []error
	for _, p := range killAll(name) {
		errs = append(errs, fmt.Errorf("process %s does not end", p))
	}
	for _, c := range cgroups(name) {
		errs = append(errs, removeCgroup(c))
	}
	errs = append(errs, os.RemoveAll(dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove rig %s: %w", dir, err)
	}
	return nil
}
