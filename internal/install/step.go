package install

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shimtrace/shimtrace/internal/atomicfile"
	"github.com/shimtrace/shimtrace/internal/programs"
)

// The actions of a step.
const (
	actionMake   = "make"
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

	content     []byte   // of a configuration, or a note
	directories []string // that go with the file if they are empty, the first one first
}

func (s step) String() string {
	switch s.Action {
	case actionMake:
		return fmt.Sprintf("%-6s %s", s.Action, filepath.Dir(s.Path))
	case actionLink:
		return fmt.Sprintf("link   %s -> %s", s.Path, s.Source)
	case actionCopy, actionConfig:
		return fmt.Sprintf("%-6s %s from %s", s.Action, s.Path, s.Source)
	}
	return fmt.Sprintf("%-6s %s", s.Action, s.Path)
}

func (s step) do() error {
	dir := filepath.Dir(s.Path)
	if s.Action != actionRemove && s.Action != actionKeep {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch s.Action {
	case actionCopy:
		program, err := os.Open(s.Source)
		if err != nil {
			return err
		}
		defer program.Close()
		return atomicfile.Replace(s.Path, dir, program, atomicfile.Mode(0o755))
	case actionLink:
		return replaceLink(s.Path, s.Source)
	case actionMake:
		return atomicfile.Replace(s.Path, dir, bytes.NewReader(s.content), atomicfile.Mode(0o644))
	case actionConfig:
		return atomicfile.Replace(s.Path, dir, bytes.NewReader(s.content), atomicfile.Mode(0o600))
	case actionRemove:
		if err := os.Remove(s.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, dir := range s.directories {
			if os.Remove(dir) != nil {
				break // others have put files there
			}
		}
	}
	return nil
}

// replaceLink makes a link under a temporary name beside path and renames it to path: a
// shim may be started at any time.
func replaceLink(path, target string) error {
	temp := fmt.Sprintf("%s.new-%d", path, os.Getpid())
	_ = os.Remove(temp)
	err := os.Symlink(target, temp)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		_ = os.Remove(temp)
	}
	return err
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
