package packages

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree returns the state of all files below root by their paths, but for what dpkg and rpm
// keep for themselves.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		if d.IsDir() && slices.Contains([]string{"/var/lib/dpkg", "/var/lib/rpm", "/var/log"}, name) {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		all[name] = info.Mode().String()
		switch info.Mode().Type() {
		case 0:
			text, err := os.ReadFile(path)
			all[name] += fmt.Sprintf(" %x", sha256.Sum256(text))
			return err
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			all[name] += " " + target
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// same checks that the files below root are as they were.
func same(t *testing.T, root string, before map[string]string) {
	t.Helper()
	now := tree(t, root)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if was, ok := before[name]; !ok {
			t.Errorf("%s is left: %s", name, now[name])
		} else if was != now[name] {
			t.Errorf("%s was %s, and is %s", name, was, now[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, ok := now[name]; !ok {
			t.Errorf("%s is gone", name)
		}
	}
}
