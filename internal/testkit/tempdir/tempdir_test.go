package tempdir

import (
	"os"
	"path/filepath"
	"testing"
)

// TestSweep: directories of processes that are gone are removed, and no others.
func TestSweep(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	mine, err := Make()
	if err != nil {
		t.Fatal(err)
	}
	left, other := filepath.Join(tmp, prefix+"1"), filepath.Join(tmp, "other")
	for _, dir := range []string{mine, left, other} {
		if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sweep()
	want := map[string]bool{mine: true, left: false, other: true}
	for dir, stays := range want {
		if _, err := os.Lstat(dir); (err == nil) != stays {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if st, err := os.Lstat(mine); err != nil || st.Mode().Perm() != 0o700 || filepath.Dir(mine) != tmp {
		t.Errorf("%s: %v", mine, err)
	}
	if err := Remove(mine); err != nil || len(owned) > 0 {
		t.Errorf("%v, %d are owned", err, len(owned))
	}
	if _, err := os.Lstat(mine); err == nil {
		t.Error("it is not removed")
	}
}
