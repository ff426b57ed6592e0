package listen

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// watcher tells when directories may have appeared. The zero value watches
// nothing.
type watcher struct {
	inotify *fsnotify.Watcher
}

func newWatcher() (watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return watcher{}, fmt.Errorf("watch directories: %w; they are looked for instead", err)
	}
	return watcher{inotify: n}, nil
}

// events tells when something has changed, for errors mean that events were lost.
func (w *watcher) events() (<-chan fsnotify.Event, <-chan error) {
	if w.inotify == nil {
		return nil, nil
	}
	return w.inotify.Events, w.inotify.Errors
}

// settle forgets the events so far.
func (w *watcher) settle() {
	events, errs := w.events()
	for {
		select {
		case <-events:
		case <-errs:
		default:
			return
		}
	}
}

// follow watches, for each directory that does not exist, the lowest one above it
// that does. It reports whether it began to watch any: then things may have
// changed just before, and the caller looks again.
func (w *watcher) follow(dirs []string) (news bool) {
	if w.inotify == nil {
		return false
	}
	want := make(map[string]bool)
	for _, dir := range dirs {
		want[lowestExisting(dir)] = true
	}
	// The kernel ends the watch of a directory that is removed.
	for _, dir := range w.inotify.WatchList() {
		if !want[dir] {
			_ = w.inotify.Remove(dir)
		}
		delete(want, dir)
	}
	for dir := range want {
		if w.inotify.Add(dir) == nil {
			news = true
		}
	}
	return news
}

func (w *watcher) close() {
	if w.inotify != nil {
		w.inotify.Close()
	}
	*w = watcher{}
}

func lowestExisting(dir string) string {
	for {
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) || dir == "/" {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
