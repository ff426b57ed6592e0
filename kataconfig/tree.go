package kataconfig

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/pelletier/go-toml/v2"
)

// tree is a file's TOML, as Kata merges it: a table into a table, key by key; any
// other value takes the former one's place.
type tree map[string]any

// maxFile bounds what is read of one file; Kata's are some 30 KiB long.
const maxFile = 1 << 20

func readTree(path string) (tree, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	var t tree
	if err := toml.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("%s is not TOML that Kata could read: %w", path, err)
	}
	return t, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is longer than a configuration can be (%d bytes)", path, maxFile)
	}
	return data, err
}

func (t tree) merge(over tree) {
	for key, value := range over {
		into, ok1 := t[key].(map[string]any)
		from, ok2 := value.(map[string]any)
		if ok1 && ok2 {
			tree(into).merge(from)
			continue
		}
		t[key] = value
	}
}

// table returns the table of that name, nil if there is none.
func (t tree) table(name string) tree {
	table, _ := t[name].(map[string]any)
	return table
}

func (t tree) get(path ...string) any {
	for _, name := range path[:len(path)-1] {
		t = t.table(name)
	}
	return t[path[len(path)-1]]
}

// merged returns what Kata makes of the configuration and of the drop-ins in dir,
// with the content given, if any, in the place of ours.
func merged(file, dir string, ours []byte) (tree, error) {
	t, err := readTree(file)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		if e.Name() != FileName {
			names = append(names, e.Name())
		}
	}
	if ours != nil {
		names = append(names, FileName)
	}
	slices.Sort(names)
	for _, name := range names {
		var over tree
		if name == FileName {
			err = toml.Unmarshal(ours, &over)
		} else {
			over, err = readTree(filepath.Join(dir, name))
		}
		if err != nil {
			return nil, err
		}
		t.merge(over)
	}
	return t, nil
}
