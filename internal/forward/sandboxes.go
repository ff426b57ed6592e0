package forward

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/forwarder/listen"
)

const sandboxPlaceholder = "{sandbox}"

// sandboxFinder finds existing sandboxes by the names in the directories where VMMs
// have their sockets.
type sandboxFinder struct {
	patterns []listen.Pattern
	dirs     map[string][]nameShape // the shapes of sandboxes' names in a directory
}

// nameShape is what comes before and after the sandbox's id in a name.
type nameShape struct{ before, after string }

func newSandboxFinder(patterns []listen.Pattern) *sandboxFinder {
	f := &sandboxFinder{patterns: patterns, dirs: make(map[string][]nameShape)}
	for _, p := range patterns {
		dir, shape := splitPattern(p.Path)
		f.dirs[dir] = append(f.dirs[dir], shape)
	}
	return f
}

// splitPattern returns the directory that has an entry for each sandbox, and the shape
// of the entries' names.
func splitPattern(path string) (dir string, shape nameShape) {
	before, after, _ := strings.Cut(filepath.Clean(path), sandboxPlaceholder)
	i := strings.LastIndexByte(before, '/')
	after, _, _ = strings.Cut(after, "/")
	return filepath.Clean(before[:i+1]), nameShape{before[i+1:], after}
}

func (f *sandboxFinder) empty() bool { return len(f.patterns) == 0 }

// find returns the ids of the existing sandboxes, each with a mark that differs when a
// sandbox has vanished and come back. Missing directories have no sandboxes.
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
					found[id] += st.Ino // the sum does not depend on the order of directories
				}
			}
		}
	}
	return found
}

// linkedNames returns the names in dir that symbolic links beside them point to. Such a
// name belongs to the sandbox that the link is named after, whose VM is from Kata's
// factory.
func linkedNames(dir string, names []string) map[string]bool {
	linked := make(map[string]bool)
	for _, name := range names {
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && filepath.Dir(target) == dir {
			linked[filepath.Base(target)] = true
		}
	}
	return linked
}

// leadsOn reports whether a path is no sandbox's but leads to other sandboxes'
// directories, as /run/kata/firecracker does.
func (f *sandboxFinder) leadsOn(path string) bool {
	for dir := range f.dirs {
		if dir == path || strings.HasPrefix(dir, path+"/") {
			return true
		}
	}
	return false
}

func (s nameShape) id(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, s.before)
	if !ok {
		return "", false
	}
	id, ok := strings.CutSuffix(rest, s.after)
	return id, ok && id != ""
}

// ownSandbox derives a sandbox and a pattern from the path of one VM's socket. If none
// of the known patterns fits, the sandbox is named after the socket's directory.
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
