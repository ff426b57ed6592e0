package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, dir, strings.NewReader("new"), Mode(0o600)); err != nil {
		t.Fatal(err)
	}
	content, _ := os.ReadFile(path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || string(content) != "new" {
		t.Errorf("%q, %v, %v", content, info, err)
	}
}

// TestFailure: what was there stays, and nothing is left beside it.
func TestFailure(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	if err := Replace(path, dir, strings.NewReader("new"), func(*os.File) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	content, _ := os.ReadFile(path)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || string(content) != "old" {
		t.Errorf("%q, %v, %v", content, entries, err)
	}
}
