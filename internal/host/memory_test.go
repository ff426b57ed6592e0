package host

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemory: it has its size and seals, and nobody can execute it.
func TestMemory(t *testing.T) {
	f, err := Memory("test", 4096, unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() != 4096 {
		t.Errorf("it has %d bytes", st.Size())
	}
	if err := f.Truncate(1); err == nil {
		t.Error("it shrinks")
	}
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		t.Skip("this kernel has no memory that cannot be executed: Linux before 6.3")
	}
	if mode := st.Mode().Perm(); mode&0o111 != 0 {
		t.Errorf("its mode is %v", mode)
	}
	if err := f.Chmod(0o700); err == nil {
		t.Error("it can be made a program")
	}
}
