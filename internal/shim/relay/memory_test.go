package relay

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// again is the memory as another process gets it.
func again(t *testing.T, m *memory) *memory {
	t.Helper()
	fd, err := unix.Dup(int(m.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := mapMemory(os.NewFile(uintptr(fd), "copy"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.file.Close() })
	return other
}

// TestMemory: another process reads the text that was written last as a whole, also if
// the one that was being written is not.
func TestMemory(t *testing.T) {
	m, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer m.file.Close()
	if _, err := again(t, m).read(); !errors.Is(err, errNoText) {
		t.Errorf("nothing was written: %v", err)
	}
	for _, text := range [][]byte{[]byte("one"), bytes.Repeat([]byte("two"), 100_000), []byte("three")} {
		if _, err := m.Write(text); err != nil {
			t.Fatal(err)
		}
		if got, err := again(t, m).read(); err != nil || !bytes.Equal(got, text) {
			t.Errorf("%d bytes, %v; want %d", len(got), err, len(text))
		}
	}
	m.waiting().Add(7)
	next := again(t, m)
	if n := next.waiting().Load(); n != 7 {
		t.Errorf("%d spans wait, want 7", n)
	}
	if _, err := next.read(); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Write([]byte("four")); err != nil {
		t.Fatal(err)
	}
	// Half of a fifth, by a process that was killed.
	if _, err := next.Write(bytes.Repeat([]byte("5"), 9000)); err != nil {
		t.Fatal(err)
	}
	if _, err := next.file.WriteAt(make([]byte, 4096), next.offset(5)+4096); err != nil {
		t.Fatal(err)
	}
	if got, err := again(t, m).read(); err != nil || string(got) != "four" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := next.Write(make([]byte, maxText)); err == nil {
		t.Error("a text that is too long")
	}
	// What is no memory is refused.
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mapMemory(f); err == nil {
		t.Error("an empty file is a memory")
	}
}
