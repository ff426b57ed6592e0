package journal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

const nobody = 65534

// foreign creates a journal with a span and gives it to another user.
func foreign(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this test needs root")
		}
		t.Skip("a directory of another user needs root")
	}
	dir := filepath.Join(t.TempDir(), "journal")
	upload(t, open(t, dir, Options{}), "span")
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestForeignDirectory: no file is written, locked or removed in the directory of
// another user, who could have left links there.
func TestForeignDirectory(t *testing.T) {
	dir := foreign(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cursorName(""), cursorName("") + ".tmp", shipLockName("")} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, Options{}); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("it is opened: %v", err)
	}
	j := New(dir, Options{})
	defer j.Close()
	if err := journaltest.Append(j, batch("secret")); err == nil {
		t.Error("it is written to")
	}
	if names, _, _ := readAll(t, dir); len(names) != 1 {
		t.Errorf("it has %v", names)
	}
	// Below that check, links are not followed either.
	if _, err := ReadCursor(dir, ""); err == nil {
		t.Error("the cursor is read through a link")
	}
	if _, err := LockShipping(dir, ""); err == nil {
		t.Error("the lock is opened through a link")
	}
	if err := WriteCursor(dir, "", Cursor{}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "as it was" {
		t.Errorf("the link's target has %q, %v", text, err)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Local users",
		Fault: "the journal's directory belongs to another user, with links in the places of the shipper's files",
		Pod:   "nothing",
		Lost:  "spans are not written there; the log names the directory's owner",
	})
}

// TestSegmentsThatAreNone: a pipe or a link in place of a segment is not read and
// blocks nobody.
func TestSegmentsThatAreNone(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, Options{})
	upload(t, j, "span")
	other := t.TempDir()
	upload(t, open(t, other, Options{}), "of another journal")
	first := segments(t, dir)[0]
	if err := unix.Mkfifo(segmentPath(dir, first-1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(segmentPath(other, segments(t, other)[0]), segmentPath(dir, first-2)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(segmentPath(dir, first-3), 0o700); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if names, _, st := readAll(t, dir); strings.Join(names, " ") != "span" || st.Segments != 1 {
		t.Errorf("spans %q, %+v", names, st)
	}
	if f := Follow(dir, Cursor{}); true {
		if _, err := f.Next(); err == nil {
			t.Error("a directory is followed as a segment")
		}
		f.Close()
	}
	if err := unix.Mkfifo(segmentPath(dir, first+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := journaltest.Append(j, batch("into a pipe")); err == nil {
		t.Error("a pipe is written to")
	}
	if waited := time.Since(began); waited > 10*time.Second {
		t.Errorf("it took %v", waited)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Local users",
		Fault: "a pipe, a link and a directory in the places of segments",
		Pod:   "nothing",
		Lost:  "nothing that was written before; appends fail while a pipe is the last segment",
	})
}
