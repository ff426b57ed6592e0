package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// madeName is a file in a target directory that install has made. It names the topmost of the
// directories that had to be made.
const madeName = ".shimtrace-install"

// planDir returns the step that makes the target directory, if it is not there.
func (in *installer) planDir() (s step, ok bool) {
	made, dir := "", filepath.Clean(in.opts.BinDir)
	for ; dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(in.below(dir)); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		made = dir
	}
	return step{Action: actionMake, Path: in.target(madeName), content: []byte(made + "\n")}, made != ""
}

// planDirRemoval returns the step that removes a target directory that install has made, with
// the directories above that it has made, as far as they are empty then.
func (in *installer) planDirRemoval() (s step, ok bool) {
	s = step{Action: actionRemove, Path: in.target(madeName)}
	text, err := os.ReadFile(s.Path)
	made := strings.TrimSuffix(string(text), "\n")
	if err != nil || made != filepath.Clean(made) || len(in.inners) > 0 {
		return s, false
	}
	for dir := filepath.Clean(in.opts.BinDir); dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		s.directories = append(s.directories, in.below(dir))
		if dir == made {
			return s, true
		}
	}
	return s, false // it was moved
}
