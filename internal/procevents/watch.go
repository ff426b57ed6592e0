package procevents

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Watcher reads the host's process events as long as somebody wants to know of some. Its
// methods, except Close, do not wait, and they may be called by any goroutine: a process
// that the kernel does not let anybody look at holds up nobody but the Watcher.
type Watcher struct {
	// Failed is told once why no events can be had, or none any more.
	Failed func(error)

	mu      sync.Mutex
	todo    []func(*follower)
	source  *Source
	running bool
	err     error
	over    chan struct{} // closed when the last goroutine has ended; nil: there was none
}

// Follow begins to follow what is below a process, as follower.follow does. Reports come
// from one of the Watcher's goroutines. gone is called instead if there is no such process,
// or if there are no events.
func (w *Watcher) Follow(pid int, start uint64, r *Root, gone func(error)) {
	w.do(func(f *follower) {
		if !f.follow(pid, start, r) {
			gone(host.ErrGone)
		}
	}, gone)
}

// Leave no longer follows what is below a root. Reports of it may yet come.
func (w *Watcher) Leave(r *Root) { w.do(func(f *follower) { f.leave(r) }, func(error) {}) }

// Err returns why no events can be had; nil if they can, as far as is known.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Close ends the Watcher, and waits until its goroutine has ended, for at most a second.
func (w *Watcher) Close() {
	w.mu.Lock()
	over := w.over
	w.fail(errClosed)
	w.mu.Unlock()
	if over != nil {
		select {
		case <-over:
		case <-time.After(time.Second):
		}
	}
}

var errClosed = errors.New("process events are not read any more")

func (w *Watcher) do(what func(*follower), failed func(error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		go failed(w.err)
		return
	}
	w.todo = append(w.todo, what)
	if w.source != nil {
		w.source.Wake()
	}
	if !w.running {
		w.running, w.over = true, make(chan struct{})
		go w.run(w.over)
	}
}

// fail has nothing read any more. The caller holds the lock.
func (w *Watcher) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	w.todo = nil
	if w.source != nil {
		w.source.Wake()
	}
}

// run reads until there is nothing to follow.
func (w *Watcher) run(over chan struct{}) {
	defer close(over)
	err := w.watch()
	if err != nil && !errors.Is(err, errClosed) && w.Failed != nil {
		w.Failed(err)
	}
}

func (w *Watcher) watch() (err error) {
	hasten()
	var source *Source
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("process events: panic: %v\n%s", v, debug.Stack())
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if source != nil {
			source.Close()
		}
		if w.source == source {
			w.source = nil
		}
		if err != nil {
			w.fail(err)
			w.running = false
		}
	}()
	if source, err = Open(); err != nil {
		return err
	}
	w.mu.Lock()
	w.source = source
	w.mu.Unlock()
	f := newFollower("/proc")
	for {
		more, err := w.next(f)
		if !more || err != nil {
			return err
		}
		if f.changed {
			f.changed = false
			source.Alarm(f.rootPIDs())
		}
		if err := w.read(source, f); err != nil {
			return err
		}
	}
}

// hasten has the kernel prefer this process's threads, which work for microseconds, to
// others': what is to be looked at may be gone in a millisecond. What the process starts is
// not preferred.
func hasten() {
	const nice = -10
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Nice: nice}, 0)
		}
	}
}

// next does what is to be done, and reports whether anything is left to follow.
func (w *Watcher) next(f *follower) (more bool, err error) {
	w.mu.Lock()
	todo := w.todo
	w.todo = nil
	w.mu.Unlock()
	for _, what := range todo {
		what(f)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return false, w.err
	}
	w.running = len(w.todo) > 0 || len(f.roots) > 0
	return w.running, nil
}

// The pace of reading. Each wake-up costs more than the events do, so a host that makes many
// processes is read in portions, of which the socket has room for thousands. The fork of an
// inner shim ends a pause, since what it executes may not live long; and while helpers are
// young, pauses are short.
const (
	pause      = 20 * time.Millisecond
	shortPause = time.Millisecond
)

// read takes the events that have come, after the first one.
func (w *Watcher) read(s *Source, f *follower) error {
	wait := forever
	if soon := f.settle(Now()); soon > 0 {
		wait = soon
	}
	n := 0
	lost, err := s.Read(wait, func(e event) { n++; f.take(e) })
	switch {
	case err != nil:
		return fmt.Errorf("process events: %w", err)
	case lost > 0:
		f.dropped(lost)
	}
	switch {
	case f.moved:
		f.moved = false
	case n > 0 && len(f.young) > 0:
		err = s.Pause(shortPause)
	case n > 0:
		err = s.Pause(pause)
	}
	return err
}
