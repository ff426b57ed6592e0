package guard

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of the files that relays want to know of.
const (
	maxWatched  = 4       // of a relay
	maxPath     = 1 << 10 // bytes of a path
	maxAllPaths = 512     // of all relays, each once
	maxLinks    = 40      // symbolic links in a path, as the kernel has it
)

const (
	// filesPause is how long the kernel's events are left unread after some were read, so
	// that a file that is written to without end does not keep the guard busy.
	filesPause = 100 * time.Millisecond
	// filesEvery is the least time between two reports of changes to relays.
	filesEvery = 500 * time.Millisecond
)

// files watches files for relays: all names by which a path leads to its file, so that a file
// that is replaced, or the directory that a link in its path names, is noticed as well.
type files struct {
	*server
	inotify int // -1 before the first path
	paths   map[string]*watchedPath
	names   map[int32]map[string][]*watchedPath // whose changes matter, by the directory's descriptor
	walking bool                                // a goroutine is at it
	again   bool                                // and what it finds is out of date
	due     bool                                // a timer is set to tell
	told    time.Time
}

// watchedPath is a path that relays want to know of.
type watchedPath struct {
	path    string
	relays  map[*relay]struct{}
	end     *string // where it leads to; nil: that is not known yet
	made    bool    // a name on it was created since it was followed
	changed bool    // since the relays were told
	err     error   // why its changes are not seen
}

// watchFiles has a relay told of changes of files, in the place of those that it has named
// before.
func (s *server) watchFiles(r *relay, paths []string) {
	s.unwatchFiles(r)
	r.notSeen = nil
	w := &s.files
	for i, path := range paths {
		if err := watchable(path); err != nil || i >= maxWatched {
			r.notSeen = cmp.Or(err, fmt.Errorf("a relay has at most %d configuration files", maxWatched))
			continue
		}
		p := w.paths[path]
		if p == nil && len(w.paths) >= maxAllPaths {
			r.notSeen = fmt.Errorf("the relays of this host have %d configuration files already", maxAllPaths)
			continue
		}
		if p == nil {
			p = &watchedPath{path: path, relays: make(map[*relay]struct{})}
			w.paths[path] = p
		}
		p.relays[r] = struct{}{}
	}
	if len(paths) > 0 {
		r.unseen = true
		w.walk()
	}
}

// watchable returns why a path cannot be watched, nil if it can.
func watchable(path string) error {
	if !filepath.IsAbs(path) || len(path) > maxPath {
		return fmt.Errorf("%.100q is not an absolute path of at most %d bytes", path, maxPath)
	}
	return nil
}

// unwatchFiles forgets which files a relay wants to know of.
func (s *server) unwatchFiles(r *relay) {
	for path, p := range s.files.paths {
		if delete(p.relays, r); len(p.relays) == 0 {
			delete(s.files.paths, path)
		}
	}
}

// walk has the paths followed anew. File systems may hang: the loop does not wait.
func (w *files) walk() {
	if w.again = w.walking; w.walking {
		return
	}
	fd, err := w.descriptor()
	if err != nil {
		err = fmt.Errorf("watch files: %w", err)
		w.walked(nil, func(string) error { return err })
		return
	}
	w.walking = true
	paths := slices.Collect(maps.Keys(w.paths))
	go func() {
		defer unix.Close(fd)
		found := make(map[string]way, len(paths))
		failed := make(map[string]error)
		for _, path := range paths {
			found[path], failed[path] = follow(path, func(dir string) (int32, error) {
				wd, err := unix.InotifyAddWatch(fd, dir, unix.IN_CLOSE_WRITE|unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVE|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_ONLYDIR)
				return int32(wd), err
			})
		}
		w.post(func() {
			w.walking = false
			w.walked(found, func(path string) error { return failed[path] })
			if w.again {
				w.walk()
			}
		})
	}()
}

// descriptor returns a copy of the inotify descriptor for the goroutine that follows paths:
// the loop may close its own meanwhile.
func (w *files) descriptor() (int, error) {
	if w.inotify < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return -1, err
		}
		if err := w.watch(fd, unix.EPOLLIN, func(uint32) { w.read() }); err != nil {
			unix.Close(fd)
			return -1, err
		}
		w.inotify = fd
	}
	return unix.FcntlInt(uintptr(w.inotify), unix.F_DUPFD_CLOEXEC, 0)
}

// walked takes what the paths have led to.
func (w *files) walked(found map[string]way, failed func(path string) error) {
	names := make(map[int32]map[string][]*watchedPath)
	news := false
	for path, p := range w.paths {
		way, ok := found[path]
		if p.err = failed(path); !ok && p.err == nil {
			continue // it was added meanwhile
		}
		if p.end != nil && (*p.end != way.end || p.made && way.linked) {
			p.changed, news = true, true
		}
		p.end, p.made = &way.end, false
		for _, at := range way.steps {
			if names[at.wd] == nil {
				names[at.wd] = make(map[string][]*watchedPath)
			}
			if all := names[at.wd][at.name]; !slices.Contains(all, p) {
				names[at.wd][at.name] = append(all, p)
			}
		}
		for r := range p.relays {
			if p.err != nil {
				r.notSeen = p.err
			}
		}
	}
	for _, r := range w.relays {
		if r.unseen && r.link != nil {
			r.unseen = false
			m := message{Type: typeWatching}
			if r.notSeen != nil {
				m.Error = r.notSeen.Error()
			}
			_ = w.send(r.link, m)
		}
	}
	for wd := range w.names {
		if names[wd] == nil && w.inotify >= 0 {
			_, _ = unix.InotifyRmWatch(w.inotify, uint32(wd))
		}
	}
	w.names = names
	if news {
		w.tellSoon()
	}
}

// way is how a path leads to its file.
type way struct {
	steps  []step
	end    string // empty: the file is not there
	linked bool   // it has another name, and so may have been written before it had this one
}

// step is a name in a directory that is watched.
type step struct {
	wd   int32
	name string
}

// follow returns the names by which the kernel gets from a path to its file, as far as they
// exist. It has each directory watched before it looks into it.
func follow(path string, watch func(dir string) (int32, error)) (w way, err error) {
	dir, rest := "/", filepath.Clean(path)
	for links := 0; ; {
		var name string
		name, rest, _ = strings.Cut(strings.TrimLeft(rest, "/"), "/")
		switch name {
		case "", ".":
			if rest == "" {
				return w, nil
			}
			continue
		case "..":
			dir = filepath.Dir(dir)
			continue
		}
		wd, err := watch(dir)
		if err != nil {
			if len(w.steps) > 0 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)) {
				return w, nil // it has gone meanwhile, which is told
			}
			return w, fmt.Errorf("watch %s: %w", dir, err)
		}
		w.steps = append(w.steps, step{wd, name})
		full := filepath.Join(dir, name)
		info, err := os.Lstat(full)
		switch {
		case err != nil:
			return w, nil // it will be told when it comes
		case info.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(full)
			if links++; err != nil || links > maxLinks {
				return w, nil
			}
			if filepath.IsAbs(to) {
				dir = "/"
			}
			rest = to + "/" + rest
		case info.IsDir():
			dir = full
		default:
			st, ok := info.Sys().(*syscall.Stat_t)
			w.end, w.linked = full, ok && st.Nlink > 1
			return w, nil
		}
	}
}

// read takes the kernel's events.
func (w *files) read() {
	var buf [16 << 10]byte
	n, err := unix.Read(w.inotify, buf[:])
	if err != nil {
		return
	}
	_ = w.watch(w.inotify, 0, func(uint32) {})
	w.after(filesPause, func() {
		if w.inotify >= 0 {
			_ = w.watch(w.inotify, unix.EPOLLIN, func(uint32) { w.read() })
		}
	})
	news, made := false, false
	for at := 0; at+unix.SizeofInotifyEvent <= n; {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&buf[at]))
		name := strings.TrimRight(string(buf[at+unix.SizeofInotifyEvent:at+unix.SizeofInotifyEvent+int(e.Len)]), "\x00")
		at += unix.SizeofInotifyEvent + int(e.Len)
		for _, p := range w.concerned(e, name) {
			if e.Mask&unix.IN_CREATE != 0 { // if it is the file itself, its writer is yet to close it
				p.made, made = true, true
			} else {
				p.changed, news = true, true
			}
		}
	}
	switch {
	case news:
		w.tellSoon()
	case made:
		w.walk()
	}
}

// tellSoon has the relays told, but not too often.
func (w *files) tellSoon() {
	if !w.due {
		w.due = true
		w.after(time.Until(w.told.Add(filesEvery)), w.tell)
	}
}

// concerned returns the paths that an event is about.
func (w *files) concerned(e *unix.InotifyEvent, name string) []*watchedPath {
	const ofDirectory = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_IGNORED
	var all []*watchedPath
	switch {
	case e.Mask&unix.IN_Q_OVERFLOW != 0:
		for _, p := range w.paths {
			all = append(all, p)
		}
	case e.Mask&ofDirectory != 0:
		for _, of := range w.names[e.Wd] {
			all = append(all, of...)
		}
	default:
		all = w.names[e.Wd][name]
	}
	return all
}

// tell tells the relays whose files have changed, and has the paths followed anew.
func (w *files) tell() {
	w.due, w.told = false, time.Now()
	for _, p := range w.paths {
		if !p.changed {
			continue
		}
		p.changed = false
		for r := range p.relays {
			if r.link != nil {
				_ = w.send(r.link, message{Type: typeChanged})
			}
		}
	}
	w.walk()
}

// WatchFiles asks to be told of changes of files (ClientOptions.Changed). On error nothing
// has changed.
func (c *Client) WatchFiles(paths []string) error {
	if len(paths) > maxWatched {
		return fmt.Errorf("%d files to watch, at most %d are", len(paths), maxWatched)
	}
	for _, path := range paths {
		if err := watchable(path); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files = paths
	c.say(func(fd int) error { return sendPacket(fd, message{Type: typeWatch, Paths: paths}) })
	return nil
}
