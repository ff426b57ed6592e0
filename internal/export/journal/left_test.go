package journal

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shimtrace/shimtrace/internal/losses"
)

// TestCountsAreLeft: counts that processes could not write when they ended, since the
// disk had failed, are written once, by the next writer.
func TestCountsAreLeft(t *testing.T) {
	state := t.TempDir()
	broken := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(broken, nil, 0o600); err != nil { // where a directory should be
		t.Fatal(err)
	}
	for i, lost := range []int{3, 4} {
		j := New(broken, Options{StateDir: state})
		j.lose(losses.Shutdown, lost)
		j.lose([]losses.Reason{losses.QueueFull, losses.DiskFull}[i], 1)
		if err := j.Close(); err == nil {
			t.Fatal("the journal could be written")
		}
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		j := New(broken, Options{StateDir: state})
		if err := j.Check(); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	if _, err := Scan(broken, func(r Record) error {
		d, err := r.Drops()
		for reason, n := range d {
			got[reason] += n
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got["shutdown"] != 7 || got["queue_full"] != 1 || got["disk_full"] != 1 {
		t.Errorf("counted %v", got)
	}
	if files, _ := filepath.Glob(filepath.Join(state, "*")); len(files) > 0 {
		t.Errorf("left %q", files)
	}
}

// TestCountsLeftByAnother: a file that shimtrace did not write is not read as counts.
func TestCountsLeftByAnother(t *testing.T) {
	dir, state := filepath.Join(t.TempDir(), "journal"), t.TempDir()
	j, err := Open(dir, Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"drops":{"shutdown":"x"}}`, "[]"} {
		if err := os.WriteFile(j.leftPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := j.Flush(); err != nil {
			t.Error(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	if segments, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(segments) > 0 {
		t.Errorf("segments %q", segments)
	}
}
