package kataconfig

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/shimtrace/shimtrace/internal/tomltree"
)

// merged returns the configuration as Kata merges it with the drop-ins in dir; ours, if
// not nil, replaces the content of shimtrace's.
func merged(file, dir string, ours []byte) (tomltree.Tree, error) {
	t, err := tomltree.Read(file)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		if e.Name() != fileName {
			names = append(names, e.Name())
		}
	}
	if ours != nil {
		names = append(names, fileName)
	}
	slices.Sort(names)
	for _, name := range names {
		var over tomltree.Tree
		if name == fileName {
			over, err = tomltree.Parse(ours)
		} else {
			over, err = tomltree.Read(filepath.Join(dir, name))
		}
		if err != nil {
			return nil, err
		}
		t.Merge(over)
	}
	return t, nil
}
