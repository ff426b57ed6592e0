package host

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock := func(how int, wait time.Duration) *os.File {
		t.Helper()
		f, err := LockFile(path, how, wait)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	one, two := lock(unix.LOCK_SH, 0), lock(unix.LOCK_SH, 0)
	if _, err := LockFile(path, unix.LOCK_EX, 0); !errors.Is(err, ErrLocked) {
		t.Fatalf("alone, while two share it: %v", err)
	}
	one.Close()
	Unlock(two)
	alone := lock(unix.LOCK_EX, 0)
	const wait = 20 * time.Millisecond
	began := time.Now()
	if err := Lock(two, unix.LOCK_SH, wait); !errors.Is(err, ErrLocked) {
		t.Fatalf("shared, while one has it alone: %v", err)
	}
	if waited := time.Since(began); waited < wait {
		t.Errorf("it waited %v", waited)
	}
	time.AfterFunc(wait, func() { alone.Close() })
	lock(unix.LOCK_EX, time.Minute).Close()
	two.Close()
}

// TestLockOfAFileThatIsRemoved: the lock's holder may remove the file, and nobody gets
// the lock of a removed file.
func TestLockOfAFileThatIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := LockFile(path, unix.LOCK_EX, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *os.File)
	go func() {
		f, err := LockFile(path, unix.LOCK_EX, time.Minute)
		if err != nil {
			t.Error(err)
		}
		got <- f
	}()
	time.Sleep(10 * time.Millisecond)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first.Close()
	f := <-got
	defer f.Close()
	if !IsFile(f, path) {
		t.Error("the lock is of a file that is not there any more")
	}
	if _, err := LockFile(filepath.Join(path, "none"), unix.LOCK_EX, time.Minute); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("in what is no directory: %v", err)
	}
}
