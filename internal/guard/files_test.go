package guard

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// watcher is a relay in this process that watches files.
type watcher struct {
	Client
	watching chan string
	read     atomic.Pointer[string] // what the first file had when a change was told last
}

// newWatcher registers one whose paths these are, and waits until they are watched.
func newWatcher(t *testing.T, h *machine, id string, paths ...string) *watcher {
	t.Helper()
	w := &watcher{watching: make(chan string, 10)}
	must(t, w.WatchFiles(paths))
	memory, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { memory.Close() })
	w.Store(Entry{Name: "state", Files: []syscall.Conn{memory}})
	w.Register(ClientOptions{
		Dir: h.dir, Who: Registration{ID: id, Program: "/bin/false", Args: []string{"relay"}},
		Watching: func(why string) { w.watching <- why },
		Changed: func() {
			text, err := os.ReadFile(paths[0])
			if err != nil {
				text = []byte(gone)
			}
			read := string(text)
			w.read.Store(&read)
		},
		Logf: h.log.add,
	})
	t.Cleanup(w.Leave)
	if why := w.hears(t); why != "" {
		t.Fatal(why)
	}
	return w
}

// hears waits until it is said whether the files are watched.
func (w *watcher) hears(t *testing.T) (why string) {
	t.Helper()
	select {
	case why := <-w.watching:
		return why
	case <-time.After(patience):
		t.Fatal("nobody says whether files are watched")
		return ""
	}
}

// gone is read where there is no file.
const gone = "gone"

// told waits until a change was told of after the file had the text.
func (w *watcher) told(t *testing.T, of, text string) {
	t.Helper()
	eventually(t, "is told: "+of, func() bool {
		read := w.read.Load()
		return read != nil && *read == text
	})
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestFileChanges: a relay is told of each way in which a file comes to say something else,
// also of a directory that is not there yet, and of links on the way to it.
func TestFileChanges(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	dir := filepath.Join(h.dir, "etc")
	path := filepath.Join(dir, "config.toml")
	w := newWatcher(t, h, "r", path)
	must(t, os.MkdirAll(dir, 0o700))
	put(t, path, "1")
	w.told(t, "made, and its directory", "1")
	put(t, path, "2")
	w.told(t, "written in place", "2")
	put(t, path+".new", "3")
	must(t, os.Rename(path+".new", path))
	w.told(t, "replaced", "3")
	must(t, os.Remove(path))
	w.told(t, "removed", gone)
	put(t, path+".other", "4")
	must(t, os.Link(path+".other", path))
	w.told(t, "linked", "4")
	must(t, os.Remove(path))
	w.told(t, "removed", gone)

	// As a kubelet mounts a ConfigMap.
	for i := range 3 {
		data := filepath.Join(dir, fmt.Sprint("..v", i))
		must(t, os.Mkdir(data, 0o700))
		put(t, filepath.Join(data, "config.toml"), fmt.Sprint("v", i))
		must(t, os.Symlink(filepath.Base(data), filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if i == 0 {
			must(t, os.Symlink("..data/config.toml", path))
		}
		w.told(t, "another version of a ConfigMap", fmt.Sprint("v", i))
	}
	must(t, os.RemoveAll(dir))
	w.told(t, "removed with its directory", gone)
	must(t, os.MkdirAll(dir, 0o700))
	put(t, path, "7")
	w.told(t, "made again", "7")
}

// TestFilesWithAnotherGuard: a guard that comes later watches them as well.
func TestFilesWithAnotherGuard(t *testing.T) {
	h := newMachine(t)
	stop := h.guard(nil)
	path := filepath.Join(h.dir, "a")
	w := newWatcher(t, h, "r", path)
	stop()
	h.guard(nil)
	if why := w.hears(t); !strings.Contains(why, "gone") {
		t.Error(why)
	}
	for w.hears(t) != "" { // it may have come to the one that was ending once more
	}
	put(t, path, "x")
	w.told(t, "its file", "x")
}

// TestFilesThatCannotBeWatched: the relay is told why, and is guarded all the same.
func TestFilesThatCannotBeWatched(t *testing.T) {
	h := newMachine(t)
	h.guard(nil)
	const many = maxAllPaths / maxWatched
	for i := range many {
		var paths []string
		for j := range maxWatched {
			paths = append(paths, filepath.Join(h.dir, fmt.Sprint(i, "-", j)))
		}
		newWatcher(t, h, fmt.Sprint("r", i), paths...)
	}
	w := &watcher{watching: make(chan string, 10)}
	must(t, w.WatchFiles([]string{filepath.Join(h.dir, "one too many")}))
	w.Register(ClientOptions{
		Dir: h.dir, Who: Registration{ID: "last", Program: "/bin/false", Args: []string{"relay"}},
		Watching: func(why string) { w.watching <- why }, Logf: h.log.add,
	})
	t.Cleanup(w.Leave)
	if why := w.hears(t); why == "" {
		t.Error("there is no bound")
	}
	eventually(t, "the relay is guarded", func() bool {
		_, all, _ := Ask(t.Context(), h.dir)
		return slices.ContainsFunc(all, func(s Status) bool { return s.ID == "last" && s.Guarded })
	})
	for _, paths := range [][]string{{"relative"}, {"/" + strings.Repeat("x", maxPath)}, {"/1", "/2", "/3", "/4", "/5"}} {
		if err := new(Client).WatchFiles(paths); err == nil {
			t.Errorf("%.20q is taken", paths)
		}
	}
}
