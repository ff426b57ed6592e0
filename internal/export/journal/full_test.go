package journal

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/disktest"
	"github.com/shimtrace/shimtrace/internal/export/journal/journaltest"
	"github.com/shimtrace/shimtrace/internal/reliability"
)

// TestFullDisk fills a file system with a journal: spans that do not fit are counted,
// written ones stay readable, and writing goes on once there is room.
func TestFullDisk(t *testing.T) {
	dir := disktest.Full(t, "64k")
	j, err := Open(dir, Options{SegmentBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()

	written, failed := 0, 0
	for i := range 200 {
		err := journaltest.Append(j, batch(fmt.Sprintf("%03d%s", i, strings.Repeat("x", 700))))
		switch {
		case err == nil:
			written++
		case errors.Is(err, unix.ENOSPC):
			failed++
		default:
			t.Fatal(err)
		}
	}
	if written == 0 || failed == 0 {
		t.Fatalf("%d written, %d failed", written, failed)
	}
	names, _, st := readAll(t, dir)
	if len(names) != written || st.CorruptBytes != 0 {
		t.Errorf("%d spans of %d, %d corrupt bytes", len(names), written, st.CorruptBytes)
	}

	if err := os.Remove(segmentPath(dir, segments(t, dir)[0])); err != nil {
		t.Fatal(err)
	}
	upload(t, j, "room again")
	names, drops, st := readAll(t, dir)
	if drops["disk_full"] != failed || names[len(names)-1] != "room again" || st.CorruptBytes != 0 {
		t.Errorf("drops %v of %d, last span %q, %d corrupt bytes", drops, failed, names[len(names)-1], st.CorruptBytes)
	}
	reliability.Row(t, reliability.Fault{
		Area:  "Disks",
		Fault: "the journal's disk is full",
		Pod:   "nothing",
		Lost:  "what does not fit: `disk_full`, which is written once there is room",
	})
}

// TestShortWrite: the kernel writes only a part of a record.
func TestShortWrite(t *testing.T) {
	j := open(t, t.TempDir(), Options{})
	upload(t, j, "before")
	size, _, err := stat(j.file)
	if err != nil {
		t.Fatal(err)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(size) + 20, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err = journaltest.Append(j, batch("lost", "too"))
	if err2 := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err2 != nil {
		t.Fatal(err2)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("append over the limit: %v", err)
	}
	if now, _, _ := stat(j.file); now != size {
		t.Errorf("%d bytes of a record stay", now-size)
	}
	upload(t, j, "after")
	names, drops, st := readAll(t, j.Dir())
	if strings.Join(names, " ") != "before after" || drops["disk_full"] != 2 || st.CorruptBytes != 0 {
		t.Errorf("spans %v, drops %v, stats %+v", names, drops, st)
	}
}
