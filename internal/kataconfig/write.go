package kataconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/atomicfile"
)

// Do makes the change, wholly or not at all.
func (c Change) Do() error {
	switch c.Action {
	case write:
		return c.write()
	case remove:
		return c.remove()
	}
	return nil
}

// write moves the finished drop-in into place. It creates the file in the directory
// above: in config.d, Kata would read half of it.
func (c Change) write() error {
	dir := filepath.Dir(c.Path)
	mkdir := os.Mkdir(dir, 0o755)
	if mkdir != nil && !errors.Is(mkdir, fs.ErrExist) {
		return mkdir
	}
	err := c.put(dir)
	if err != nil && mkdir == nil {
		_ = os.Remove(dir)
	}
	return err
}

func (c Change) put(dir string) error {
	dir, err := filepath.EvalSymlinks(dir) // a rename must not leave the file system
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(dir, fileName), filepath.Dir(dir), bytes.NewReader(c.content), atomicfile.Mode(0o644))
}

// remove removes the drop-in, and the directory created for it unless it has other
// files.
func (c Change) remove() error {
	if err := os.Remove(c.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if c.made {
		if err := os.Remove(filepath.Dir(c.Path)); err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// writable returns an error if the drop-in cannot be written.
func writable(path string) error {
	dir := filepath.Dir(path)
	dirs := []string{filepath.Dir(dir)}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		if st, err := os.Stat(real); err == nil && !st.IsDir() {
			return fmt.Errorf("%s is not a directory: Kata starts nothing with that there", dir)
		}
		dirs = []string{real, filepath.Dir(real)}
	}
	for _, d := range dirs {
		if err := unix.Faccessat(unix.AT_FDCWD, d, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			return fmt.Errorf("%s can't be written to (%w): be root, or, where it is read-only, copy the configuration to /etc/kata-containers, where Kata looks first", d, err)
		}
	}
	return nil
}
