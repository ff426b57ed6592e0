package vmmdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Watcher tells when files may have appeared. The zero value watches nothing.
type Watcher struct {
	inotify *fsnotify.Watcher
}

// NewWatcher returns a watcher to be closed. Its inotify instance is one of those
// that the kernel rations by user (128 by default); the error says that there is
// none, the watcher is then the zero value.
func NewWatcher() (Watcher, error) {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return Watcher{}, fmt.Errorf("watch directories: %w; they are looked for instead", err)
	}
	return Watcher{inotify: n}, nil
}

// Events tells when something has changed, for errors mean that events were lost.
func (w *Watcher) Events() (<-chan fsnotify.Event, <-chan error) {
	if w.inotify == nil {
		return nil, nil
	}
	return w.inotify.Events, w.inotify.Errors
}

// Settle forgets the events so far.
func (w *Watcher) Settle() {
	events, errs := w.Events()
	for {
		select {
		case <-events:
		case <-errs:
		default:
			return
		}
	}
}

// Follow watches, for each path where there is nothing, the lowest directory above
// it that exists. It reports whether it began to watch any: then things may have
// changed just before, and the caller looks again.
func (w *Watcher) Follow(paths []string) (news bool) {
	if w.inotify == nil {
		return false
	}
	want := make(map[string]bool)
	for _, path := range paths {
		want[lowestExisting(path)] = true
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

// Close ends the watch.
func (w *Watcher) Close() {
	if w.inotify != nil {
		w.inotify.Close()
	}
	*w = Watcher{}
}

func lowestExisting(path string) string {
	for {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) || path == "/" {
			return path
		}
		path = filepath.Dir(path)
	}
}
