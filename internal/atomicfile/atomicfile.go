// Package atomicfile replaces files of other programs' configurations, and programs: a
// reader, which may start at any moment, finds the old content or the new one, also after
// a loss of power. Files in directories of our own are package private's.
package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Replace gives the file at path the content. Until it is whole and on disk, it is a hidden
// file in dir, which is on the same file system. prepare gives it its mode and owner.
func Replace(path, dir string, content io.Reader, prepare func(*os.File) error) error {
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.shimtrace") // a name that no reader of a directory takes
	if err != nil {
		return err
	}
	_, err = io.Copy(temp, content)
	err = errors.Join(err, prepare(temp), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}

// Mode has Replace give the file a mode.
func Mode(mode os.FileMode) func(*os.File) error {
	return func(f *os.File) error { return f.Chmod(mode) }
}
