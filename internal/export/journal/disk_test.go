package journal

import (
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestReadOnlyDisk: spans are counted while the process lives.
func TestReadOnlyDisk(t *testing.T) {
	dir := disktest.ReadOnly(t)
	j, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := journaltest.Append(j, batch("a", "b")); !errors.Is(err, unix.EROFS) {
			t.Errorf("%v", err)
		}
	}
	if got := j.lost; got["write_failed"] != 6 || len(got) != 1 {
		t.Errorf("counted %v", got)
	}
	clear(j.lost)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(dir, "below"), Options{}); !errors.Is(err, unix.EROFS) {
		t.Errorf("a directory on it: %v", err)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Disks",
		Fault: "the journal's file system is, or becomes, read-only",
		Pod:   "nothing",
		Lost:  "everything: `write_failed`; containers that start then are not traced, and the log says why",
	})
}

// TestFailingDisk: the disk fails while processes write and read.
func TestFailingDisk(t *testing.T) {
	root, _, _ := disktest.Ext4(t)
	dir := filepath.Join(root, "journal")
	j := open(t, dir, Options{SegmentBytes: 8 << 10})
	for range 10 {
		upload(t, j, "before "+pad)
	}
	f := Follow(dir, Cursor{})
	defer f.Close()
	if _, err := f.Next(); err != nil {
		t.Fatal(err)
	}
	disktest.Fail(t, root)
	for range 3 {
		if err := journaltest.Append(j, batch("after "+pad)); !errors.Is(err, unix.EIO) {
			t.Errorf("append: %v", err)
		}
	}
	if err := WriteCursor(dir, "", f.Cursor()); err == nil {
		t.Error("the cursor is written")
	}
	if err := j.Flush(); err == nil {
		t.Error("the losses are written")
	}
	if got := j.lost; got["write_failed"] != 3 || len(got) != 1 {
		t.Errorf("counted %v", got)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Disks",
		Fault: "the journal's disk answers everything with EIO",
		Pod:   "nothing",
		Lost:  "everything: `write_failed`, which is written if the disk comes back",
	})
}

// TestSlowDisk: a disk that stalls repeatedly loses nothing.
func TestSlowDisk(t *testing.T) {
	root, freeze, thaw := disktest.Ext4(t)
	dir := filepath.Join(root, "journal")
	// The first segment is there: whoever makes it has 50 ms, as long as others wait.
	upload(t, open(t, dir, Options{}), pad)
	over := make(chan struct{})
	var slowing sync.WaitGroup
	slowing.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			freeze()
			time.Sleep(50 * time.Millisecond)
			thaw()
			time.Sleep(time.Millisecond)
		}
	})
	const writers, each = 3, 20
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			j := New(dir, Options{SegmentBytes: 8 << 10})
			for range each {
				if err := journaltest.Append(j, batch(pad)); err != nil {
					t.Error(err)
				}
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	writing.Wait()
	close(over)
	slowing.Wait()
	if names, drops, st := readAll(t, dir); len(names) != 1+writers*each || len(drops) != 0 || st.CorruptBytes != 0 {
		t.Errorf("%d spans of %d, drops %v, %d corrupt bytes", len(names), 1+writers*each, drops, st.CorruptBytes)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Disks",
		Fault: "the journal's disk stands still for 50 ms, again and again",
		Pod:   "nothing",
		Lost:  "nothing",
	})
}
