// Package reliability keeps docs/reliability.md, the table of faults that the tests
// inject: what was done, what a pod noticed, what was lost and how that was counted.
// The test that proves a row writes it, and fails if the document differs.
//
// Only tests import it. It injects no faults itself.
package reliability

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// writeEnv names the environment variable that makes Row write the document instead of
// comparing.
const writeEnv = "SHIMTRACE_WRITE_RELIABILITY"

// A Fault is one row of the document. Its texts are single lines, do not differ from
// run to run, and say what the test has measured.
type Fault struct {
	// Area is the heading above the row: Collectors, Guests, Local users, Hangs, Disks,
	// Processes or another one.
	Area string
	// Fault says what was done. It is unique in its area.
	Fault string
	// Pod says what a pod noticed, usually "nothing".
	Pod string
	// Lost says which spans were lost, and under which reason they were counted; or
	// "nothing".
	Lost string
	// Load has the numbers of a fault under load, instead of Pod and Lost. They are of
	// the run that wrote the row; later runs may differ but must not contradict them
	// (see contradicts).
	Load *Load
}

// Row compares f with its row of the document, or writes it if writeEnv is set. A test
// calls it at its end, when everything that f says is proven; Row does nothing for a
// test that has failed.
func Row(t testing.TB, f Fault) {
	t.Helper()
	if t.Failed() {
		return
	}
	path, err := document()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(writeEnv) != "" {
		if err := update(path, f, t.Name()); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, want := parse(string(text)).row(f), f.row(t.Name())
	if f.Load != nil && got != "" {
		if said := f.Load.contradicts(got); said != "" {
			t.Errorf("%s differs from what this test has seen: %s\n have %s\n want %s", path, said, got, want)
		}
		return
	}
	if got != want {
		t.Errorf("%s differs from what this test has seen: run it with %s=1\n have %s\n want %s", path, writeEnv, got, want)
	}
}

// update writes f's row into the document at path, under a lock: tests of several
// packages do so at once.
func update(path string, f Fault, test string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := parse(string(text))
	d.set(f, test)
	return os.WriteFile(path, []byte(d.String()), 0o644)
}

// document returns the path of the document, searched upwards from the test's working
// directory.
func document() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "docs", "reliability.md")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("docs/reliability.md is in no directory above the working directory")
		}
	}
}
