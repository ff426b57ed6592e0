package shim

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceAddress(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "address")
	if err := replaceAddress(dir, relayAddr); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("an address file was made where the shim wrote none")
	}
	if err := os.WriteFile(path, []byte(innerAddr), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := replaceAddress(dir, relayAddr); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(path)
	st, _ := os.Stat(path)
	if string(got) != relayAddr || st.Mode().Perm() != 0o644 {
		t.Errorf("%q, mode %v", got, st.Mode())
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
