package journal

import (
	"errors"
	"fmt"
	"time"
)

// ErrHangs says that the journal's file system does not answer.
var ErrHangs = errors.New("the journal's disk does not answer")

// Within calls f, which is about the journal's files, and returns its error, or ErrHangs
// if it has not returned in time: nothing interrupts a call of a file system that hangs.
// f goes on by itself then, and until it has returned nobody else's f is called. It is for
// those who must not wait for a disk; their calls follow each other.
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
