// Package tomltree reads other programs' TOML files as trees of tables, and merges them
// as those programs do. It knows none of their keys.
package tomltree

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// A Tree is a TOML table; its subtables are map[string]any.
type Tree map[string]any

// MaxFile bounds the size of one file, in bytes. Configurations have some 30 KiB.
const MaxFile = 1 << 20

// Read reads the file at path.
func Read(path string) (Tree, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s is not TOML: %w", path, err)
	}
	return t, nil
}

// Parse reads TOML, skipping the byte order mark that some editors write, as the TOML
// libraries of Kata and containerd do.
func Parse(data []byte) (Tree, error) {
	var t Tree
	err := toml.Unmarshal(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), &t)
	if t == nil {
		t = Tree{}
	}
	return t, err
}

// ReadFile reads a file of at most MaxFile bytes.
func ReadFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(data) > MaxFile {
		err = fmt.Errorf("%s is longer than a configuration can be (%d bytes)", path, MaxFile)
	}
	return data, err
}

// Merge merges over into t: tables key by key; any other value replaces the former one.
func (t Tree) Merge(over Tree) {
	for key, value := range over {
		into, ok1 := t[key].(map[string]any)
		from, ok2 := value.(map[string]any)
		if ok1 && ok2 {
			Tree(into).Merge(from)
			continue
		}
		t[key] = value
	}
}

// Table returns the table at the path, nil if there is none.
func (t Tree) Table(path ...string) Tree {
	for _, name := range path {
		table, _ := t[name].(map[string]any)
		t = table
	}
	return t
}

// Get returns the value at the path, nil if there is none.
func (t Tree) Get(path ...string) any {
	last := len(path) - 1
	return t.Table(path[:last]...)[path[last]]
}
