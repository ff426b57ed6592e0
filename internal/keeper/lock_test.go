package keeper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/host"
)

func lock(path string) (*os.File, error) { return host.LockFile(path, unix.LOCK_EX, 0) }

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
	held, err := lock(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for _, said := range []string{"", "0", "999", "nonsense", fmt.Sprint(other.Fd()), fmt.Sprint(held.Fd(), " x")} {
		t.Setenv(KeptEnv, said)
		if f, files := Inherited(path); f != nil || files != nil {
			t.Errorf("%q is taken for %v, %v", said, f, files)
		}
	}
	copyOfLock, more := left(t, held), left(t, other)
	held.Close()
	t.Setenv(KeptEnv, fmt.Sprint(copyOfLock, more))
	f, files := Inherited(path)
	if f == nil || len(files) != 1 || int(files[0].Fd()) != more {
		t.Fatalf("%v, %v", f, files)
	}
	defer files[0].Close()
	if os.Getenv(KeptEnv) != "" {
		t.Error("a child of this process would be told, too")
	}
	if _, err := lock(path); !errors.Is(err, host.ErrLocked) {
		t.Errorf("the lock is not held: %v", err)
	}
	f.Close()
	if f, err = lock(path); err != nil {
		t.Fatalf("the lock is held by a copy: %v", err)
	}
	f.Close()
}
