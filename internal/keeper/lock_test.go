package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrHeld) {
		t.Errorf("second lock: %v", err)
	}
	f.Close()
	if f, err = Lock(path); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := Lock(filepath.Join(path, "none")); err == nil || errors.Is(err, ErrHeld) {
		t.Errorf("where there is no directory: %v", err)
	}
}

// left returns a copy of a file, as a child has it.
func left(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestInherited(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "lock")
	lock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := Lock(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, said := range []string{"", "0", "999", "nonsense", fmt.Sprint(other.Fd()), fmt.Sprint(lock.Fd(), " x")} {
		t.Setenv(KeptEnv, said)
		if f, files := Inherited(path); f != nil || files != nil {
			t.Errorf("%q is taken for %v, %v", said, f, files)
		}
	}
	copyOfLock, more := left(t, lock), left(t, other)
	lock.Close()
	t.Setenv(KeptEnv, fmt.Sprint(copyOfLock, more))
	f, files := Inherited(path)
	if f == nil || len(files) != 1 || int(files[0].Fd()) != more {
		t.Fatalf("%v, %v", f, files)
	}
	defer files[0].Close()
	if os.Getenv(KeptEnv) != "" {
		t.Error("a child of this process would be told, too")
	}
	if _, err := Lock(path); !errors.Is(err, ErrHeld) {
		t.Errorf("the lock is not held: %v", err)
	}
	f.Close()
	if f, err = Lock(path); err != nil {
		t.Fatalf("the lock is held by a copy: %v", err)
	}
	f.Close()
}
