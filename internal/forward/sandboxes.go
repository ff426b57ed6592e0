package forward

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

// sandboxPlaceholder stands for the sandbox's id in a pattern.
const sandboxPlaceholder = "{sandbox}"

// sandboxFinder finds the sandboxes that there are by the names in the directories
// where VMMs have their sockets.
type sandboxFinder struct {
	patterns []listen.Pattern
	dirs     map[string][]nameShape // what sandboxes are called in a directory
}

// nameShape is what is before and after the sandbox's id in a name.
type nameShape struct{ before, after string }

func newSandboxFinder(patterns []listen.Pattern) *sandboxFinder {
	f := &sandboxFinder{patterns: patterns, dirs: make(map[string][]nameShape)}
	for _, p := range patterns {
		dir, shape := splitPattern(p.Path)
		f.dirs[dir] = append(f.dirs[dir], shape)
	}
	return f
}

// splitPattern returns the directory that has an entry for each sandbox, and what
// the entries are called.
func splitPattern(path string) (dir string, shape nameShape) {
	before, after, _ := strings.Cut(filepath.Clean(path), sandboxPlaceholder)
	i := strings.LastIndexByte(before, '/')
	after, _, _ = strings.Cut(after, "/")
	return filepath.Clean(before[:i+1]), nameShape{before[i+1:], after}
}

func (f *sandboxFinder) empty() bool { return len(f.patterns) == 0 }

// find returns the ids of the sandboxes that there are now, each with a mark that
// is another one when it has come back after it was gone. Directories that are not
// there have none.
func (f *sandboxFinder) find() map[string]uint64 {
	found := make(map[string]uint64)
	for dir, shapes := range f.dirs {
		d, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := d.Readdirnames(-1)
		d.Close()
		linked := linkedNames(dir, names)
		for _, name := range names {
			path := filepath.Join(dir, name)
			if f.leadsOn(path) || linked[name] {
				continue
			}
			for _, s := range shapes {
				var st unix.Stat_t
				if id, ok := s.id(name); ok && unix.Lstat(path, &st) == nil {
					found[id] += st.Ino // of all its directories, in any order
				}
			}
		}
	}
	return found
}

// linkedNames returns the names that links beside them lead to: what they name is
// called like the link, as a sandbox whose VM is from Kata's factory.
func linkedNames(dir string, names []string) map[string]bool {
	linked := make(map[string]bool)
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && filepath.Dir(target) == dir {
			linked[filepath.Base(target)] = true
		}
	}
	return linked
}

// leadsOn tells that a path is no sandbox's, but on the way to where other
// sandboxes are: /run/kata/firecracker among what is in /run/kata.
func (f *sandboxFinder) leadsOn(path string) bool {
	for dir := range f.dirs {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			return true
		}
	}
	return false
}

// id returns the sandbox's id in a name.
func (s nameShape) id(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, s.before)
	if !ok {
		return "", false
	}
	id, ok := strings.CutSuffix(rest, s.after)
	return id, ok && id != ""
}

// ownSandbox makes of the path of one VM's socket a sandbox and a pattern: as the
// known places have it, else the sandbox is called like the socket's directory.
func ownSandbox(path string) fixedSocket {
	for _, p := range listen.DefaultPatterns() {
		before, after, _ := strings.Cut(p.Path, sandboxPlaceholder)
		rest, ok := strings.CutPrefix(path, before)
		id, ends := strings.CutSuffix(rest, after)
		if ok && ends && id != "" && !strings.Contains(id, "/") {
			return fixedSocket{id, p}
		}
	}
	dir, name := filepath.Split(path)
	if dir == "/" {
		return fixedSocket{name, listen.Pattern{VMM: "--socket-path", Path: "/" + sandboxPlaceholder}}
	}
	dir = filepath.Clean(dir)
	return fixedSocket{filepath.Base(dir), listen.Pattern{VMM: "--socket-path", Path: filepath.Join(filepath.Dir(dir), sandboxPlaceholder, name)}}
}
