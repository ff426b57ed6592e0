package journal

import (
	"errors"
	"fmt"
	"time"
)

// ErrHangs says that the journal's file system does not answer.
var ErrHangs = errors.New("the journal's disk does not answer")

// Within calls f, which uses the journal's files, and returns its error, or [ErrHangs]
// if f has not returned in time: a call of a hanging file system cannot be interrupted.
// f then goes on by itself, and until it returns every call of Within fails with
// ErrHangs. Within is for callers that must not wait for a disk and that call it one
// after another.
func (j *Journal) Within(d time.Duration, f func() error) error {
	if !j.hanging.CompareAndSwap(false, true) {
		return fmt.Errorf("%w: %s", ErrHangs, j.dir)
	}
	done := make(chan error, 1)
	go func() {
		err := f()
		j.hanging.Store(false)
		done <- err
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("%w: %s", ErrHangs, j.dir)
	}
}
