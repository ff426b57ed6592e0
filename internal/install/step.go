package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/programs"
)

// The actions of a step.
const (
	actionCopy   = "copy"
	actionLink   = "link"
	actionKeep   = "keep"
	actionConfig = "config"
	actionRemove = "remove"
)

// step is one change of the file system, made wholly or not at all.
type step struct {
	Action string `json:"action"`
	Path   string `json:"path"`
	// Source is the file to copy, or the target of the link.
	Source string `json:"source,omitempty"`

	content   []byte // of a configuration
	directory bool   // the directory goes with the file
}

func (s step) String() string {
	switch s.Action {
	case actionLink:
		return fmt.Sprintf("link   %s -> %s", s.Path, s.Source)
	case actionCopy, actionConfig:
		return fmt.Sprintf("%-6s %s from %s", s.Action, s.Path, s.Source)
	}
	return fmt.Sprintf("%-6s %s", s.Action, s.Path)
}

func (s step) do() error {
	switch s.Action {
	case actionCopy:
		return replace(s.Path, func(temp string) error { return copyProgram(temp, s.Source) })
	case actionLink:
		return replace(s.Path, func(temp string) error { return os.Symlink(s.Source, temp) })
	case actionConfig:
		return replace(s.Path, func(temp string) error { return writeConfig(temp, s.content) })
	case actionRemove:
		if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if s.directory {
			_ = os.Remove(filepath.Dir(s.Path)) // it stays if others have put files there
		}
	}
	return nil
}

// replace produces a file under a temporary name beside path and renames it to path: a
// shim may be started at any time.
func replace(path string, produce func(temp string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	_ = os.Remove(temp)
	err := produce(temp)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
}

func copyProgram(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
}

// ours reports whether path is a link to the tracing shim or a program of this module.
// The name of a link's target is enough, even if the target is gone.
func ours(path string) bool {
	if target, err := os.Readlink(path); err == nil {
		return filepath.Base(target) == shimName
	}
	return programs.Ours(path)
}

// sameFile reports whether b is a, or a program with the same content.
func sameFile(a, b string) (bool, error) {
	sa, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	sb, err := os.Lstat(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || os.SameFile(sa, sb) {
		return err == nil, err
	}
	if !sb.Mode().IsRegular() || sb.Mode().Perm()&0o111 == 0 || sa.Size() != sb.Size() {
		return false, nil
	}
	return sameContent(a, b)
}

func sameContent(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			if ended(errA) && ended(errB) {
				return true, nil
			}
			return false, errors.Join(errA, errB)
		}
	}
}

func ended(err error) bool { return err == io.EOF || err == io.ErrUnexpectedEOF }
