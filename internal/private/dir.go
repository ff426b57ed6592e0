package private

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MakeDir makes a directory, and those above it, with mode 0700 unless it exists. It
// returns why the directory is not private, nil if it is.
func MakeDir(path string) error {
	if err := CheckDir(path); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return CheckDir(path)
}

// CheckDir returns why a directory is not private, nil if it is. The error is
// [os.ErrNotExist] if it does not exist and nobody else could make it.
func CheckDir(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	return walk(path, uint32(os.Geteuid()), uint32(os.Getegid()))
}

// maxLinks is how many symbolic links a path may have (path_resolution(7)).
const maxLinks = 40

// walk follows an absolute path as the kernel does and checks each directory and link
// on the way.
func walk(path string, uid, gid uint32) error {
	at, rest, links := "/", components(path), 0
	for {
		var st unix.Stat_t
		if err := unix.Lstat(at, &st); err != nil {
			return &os.PathError{Op: "stat", Path: at, Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			if links++; links > maxLinks {
				return &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			if st.Uid != 0 && st.Uid != uid {
				return fmt.Errorf("%s is a link of user %d, who could have it point anywhere", at, st.Uid)
			}
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			at = filepath.Dir(at)
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(components(target), rest...)
		} else if err := safe(at, &st, len(rest) == 0, uid, gid); err != nil {
			return err
		}
		if len(rest) == 0 {
			return nil
		}
		// Joined only now: the directory before a ".." has been checked.
		at, rest = filepath.Join(at, rest[0]), rest[1:]
	}
}

func components(path string) (names []string) {
	for name := range strings.SplitSeq(path, "/") {
		if name != "" && name != "." {
			names = append(names, name)
		}
	}
	return names
}

// safe returns why another user could change a directory on the path or, if it is the
// last, what is in it. A sticky directory may be passed: each entry belongs to its maker.
func safe(path string, st *unix.Stat_t, last bool, uid, gid uint32) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	case st.Uid != 0 && st.Uid != uid:
		return fmt.Errorf("directory %s belongs to user %d, who could change what is in it: name one below directories of root's, or of your own", path, st.Uid)
	case st.Mode&unix.S_ISVTX != 0 && !last:
		return nil
	case st.Mode&0o002 != 0, st.Mode&0o020 != 0 && st.Gid != 0 && (uid == 0 || st.Gid != gid):
		return fmt.Errorf("directory %s can be written to by others (mode %04o, group %d): chmod go-w %[1]s", path, st.Mode&0o7777, st.Gid)
	}
	return nil
}
