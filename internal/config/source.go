package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Source is where a configuration comes from, for a caller that reads it again when a file
// changes. It is for one goroutine.
type Source struct {
	inner  string
	getenv func(string) string
	last   []Version
}

// NewSource returns the source of the configuration of an inner shim, as Load reads it. It
// must be called before the configuration is read for the first time.
func NewSource(inner string, getenv func(string) string) *Source {
	s := &Source{inner: inner, getenv: getenv}
	s.last = Versions(getenv)
	return s
}

// Files are the paths of the files that the configuration depends on, whether they are there
// or not.
func (s *Source) Files() []string { return Files(s.getenv) }

// Files are the paths of the files that configurations depend on.
func Files(getenv func(string) string) (all []string) {
	if path, _ := Path(getenv); path != os.DevNull {
		all = append(all, path)
	}
	if path := otelFile(getenv); filepath.IsAbs(path) {
		all = append(all, path)
	}
	return all
}

// Bounds of the wait for a file that is being written.
const (
	writing      = 20 * time.Millisecond
	writingTries = 10
)

// Again reads the configuration again if a file looks as if it had changed since the last
// time, or if told says that one has. A file that was there and is gone is a mistake in
// the report.
func (s *Source) Again(told bool) (cfg Config, r Report, changed bool) {
	now := Versions(s.getenv)
	if !told && slices.Equal(now, s.last) {
		return cfg, r, false
	}
	for range writingTries { // what is read while it is written may be half of it
		time.Sleep(writing)
		now = Versions(s.getenv)
		cfg, r = Load(s.inner, s.getenv)
		if slices.Equal(now, Versions(s.getenv)) {
			break
		}
	}
	for i, path := range s.Files() {
		if now[i] == (Version{}) && s.last[i] != (Version{}) && !r.Unreadable {
			r.Mistakes = append(r.Mistakes, &GoneError{path})
		}
	}
	s.last = now
	return cfg, r, true
}

// GoneError is the mistake of a file that was there and is not any more.
type GoneError struct{ Path string }

// Error implements error.
func (e *GoneError) Error() string { return fmt.Sprintf("configuration %s: the file is gone", e.Path) }

// Where returns where in a file a mistake is: 0 if that is not known.
func Where(err error) (line, column int) {
	if m, ok := errors.AsType[Mistake](err); ok {
		return m.Line, m.Column
	}
	return 0, 0
}

// Version tells one state of a file from another, unless both are of the same moment. The
// Version of an absent file is zero.
type Version struct {
	inode    uint64
	size     int64
	modified syscall.Timespec
}

// Versions are those of Files.
func Versions(getenv func(string) string) (all []Version) {
	for _, path := range Files(getenv) {
		all = append(all, versionOf(path))
	}
	return all
}

func versionOf(path string) Version {
	info, err := os.Stat(path)
	if err != nil {
		return Version{}
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Version{}
	}
	return Version{st.Ino, st.Size, st.Mtim}
}
