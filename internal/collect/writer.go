package collect

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/forwarder/receiver"
)

// writer appends posts to the journal, all that are waiting at once: a record's cost is
// then shared, and so is the wait for other writers.
type writer struct {
	journal *journal.Journal
	queue   chan entry
	over    chan struct{} // closed when run has returned

	mu     sync.Mutex
	closed bool
}

// entry is a post that waits. done is called when it is in the journal, or cannot be.
type entry struct {
	batches []receiver.Batch
	done    func(error)
}

const (
	// maxWaiting bounds the posts that wait while the disk hangs.
	maxWaiting = 256
	// together bounds the bytes that are appended at once.
	together = 1 << 20
)

// errWaiting tells a program to send its spans again: the disk does not keep up.
var errWaiting = errors.New("too many spans wait for the journal's disk, try again later")

func newWriter(j *journal.Journal) *writer {
	w := &writer{journal: j, queue: make(chan entry, maxWaiting), over: make(chan struct{})}
	go w.run()
	return w
}

func (w *writer) put(e entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := errWaiting
	if !w.closed {
		select {
		case w.queue <- e:
			return
		default:
		}
	}
	e.done(err)
}

func (w *writer) run() {
	defer close(w.over)
	for first := range w.queue {
		all := []entry{first}
		for size := first.size(); size < together; {
			select {
			case next, ok := <-w.queue:
				if ok {
					all, size = append(all, next), size+next.size()
					continue
				}
			default:
			}
			break
		}
		for i, err := range w.write(all) {
			all[i].done(err)
		}
	}
}

func (e entry) size() (n int) {
	for _, b := range e.batches {
		n += len(b.Data)
	}
	return n
}

// write appends posts, the spans of each share together, and returns for each post why
// not all of it could be appended.
func (w *writer) write(all []entry) []error {
	errs := make([]error, len(all))
	parts, owners := make(map[journal.Source][]journal.Posted), make(map[journal.Source][]int)
	var order []journal.Source
	for i, e := range all {
		for _, b := range e.batches {
			source := journal.PostedSource(b.Service)
			if parts[source] == nil {
				order = append(order, source)
			}
			parts[source] = append(parts[source], journal.Posted{Data: b.Data, Spans: b.Spans})
			owners[source] = append(owners[source], i)
		}
	}
	for _, source := range order {
		done, err := w.journal.AppendPosted(source, parts[source])
		for _, i := range owners[source][done:] {
			errs[i] = fmt.Errorf("the journal does not take spans: %w", err)
		}
	}
	return errs
}

// close waits until all posts are written, or d is over.
func (w *writer) close(d time.Duration) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	select {
	case <-w.over:
		return w.journal.Within(d, w.journal.Close)
	case <-time.After(d):
		return fmt.Errorf("%w: %s", journal.ErrHangs, w.journal.Dir())
	}
}
