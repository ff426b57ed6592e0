package ship

import (
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// tick is how often the journal is checked in any case: the kernel may refuse a watch
// or drop its events.
const tick = 2 * time.Second

// watch tells when segments are written.
type watch struct {
	dir     string
	watcher *fsnotify.Watcher // nil: unavailable
	ticker  *time.Ticker
}

func newWatch(dir string, interval time.Duration) *watch {
	w := &watch{dir: dir, ticker: time.NewTicker(interval)}
	if watcher, err := fsnotify.NewWatcher(); err == nil {
		w.watcher = watcher
		w.add()
	}
	return w
}

// add watches the directory again, since it may have been replaced.
func (w *watch) add() {
	if w.watcher != nil {
		_ = w.watcher.Add(w.dir)
	}
}

// wait returns when a segment may have been written, done is closed, or it is woken.
func (w *watch) wait(done, woken <-chan struct{}) {
	var events chan fsnotify.Event
	var errs chan error
	if w.watcher != nil {
		events, errs = w.watcher.Events, w.watcher.Errors
	}
	for {
		select {
		case e := <-events:
			if strings.HasSuffix(e.Name, ".seg") {
				return
			}
		case <-errs: // events were lost
			return
		case <-w.ticker.C:
			w.add()
			return
		case <-woken:
			return
		case <-done:
			return
		}
	}
}

func (w *watch) close() {
	w.ticker.Stop()
	if w.watcher != nil {
		w.watcher.Close()
	}
}
