package seeded

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// write is the variable in the environment that makes tests write their rows.
const write = "SHIMTRACE_WRITE_EXPLAIN"

// record compares a row with the document's, or writes it. A row begins with its key and
// ends with the test's name; where the cells between vary from run to run, only the key
// is compared.
func record(t testing.TB, section, key, cells string, exact bool) {
	t.Helper()
	path, err := document()
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(t.Name(), "/")
	row := key + cells + " `" + name + "` |"
	if os.Getenv(write) == "" {
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want := "\n" + row + "\n"
		if !exact {
			want = "\n" + key
		}
		if !strings.Contains(string(doc), want) {
			t.Errorf("docs/explain.md has no row like this one; %s=1 writes it:\n%s", write, row)
		}
		return
	}
	if err := edit(path, func(doc string) (string, error) { return set(doc, section, key, row) }); err != nil {
		t.Fatal(err)
	}
}

// document returns the path of docs/explain.md in the tree that the test is in.
func document() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "docs", "explain.md")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("docs/explain.md is not above the working directory")
}

// set puts a row into the table of a section, in place of one with its key.
func set(doc, section, key, row string) (string, error) {
	before, rest, ok := strings.Cut(doc, "\n## "+section+"\n")
	if !ok {
		return "", errors.New("docs/explain.md has no section " + section)
	}
	body, after, more := strings.Cut(rest, "\n## ")
	head, rows := []string{}, []string{}
	tail := ""
	lines := strings.Split(strings.TrimRight(body, "\n"), "\n")
	for i, line := range lines {
		switch {
		case !strings.HasPrefix(line, "|") && len(rows) == 0:
			head = append(head, line)
		case !strings.HasPrefix(line, "|"):
			tail = "\n" + strings.Join(lines[i:], "\n")
		default:
			rows = append(rows, line)
		}
		if tail != "" {
			break
		}
	}
	if len(rows) < 2 {
		return "", errors.New("docs/explain.md has no table in section " + section)
	}
	table := slices.DeleteFunc(slices.Clone(rows[2:]), func(r string) bool { return strings.HasPrefix(r, key) })
	table = append(table, row)
	slices.Sort(table)
	out := before + "\n## " + section + "\n" + strings.Join(append(append(head, rows[:2]...), table...), "\n") + tail + "\n"
	if more {
		out += "\n## " + after
	}
	return out, nil
}

// edit rewrites a file, one process at a time: packages' tests run at once.
func edit(path string, f func(string) (string, error)) error {
	lock, err := os.Open(path)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := f(string(doc))
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
