// Package testkit is what tests of many packages need.
package testkit

import (
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// Patience is far more than any condition takes, on a busy machine, too.
const Patience = 2 * time.Minute

// Check ends the test if there is an error.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Until waits until a condition holds, and ends the test if it does not in two minutes. It
// pauses for as long as looking takes: some conditions read all of a journal or of /proc,
// and those who are waited for need the processor, too.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); ; {
		began := time.Now()
		if holds() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(max(2*time.Millisecond, time.Since(began)))
	}
}

// ShortDir returns a directory for the length of a test, with a name so short that sockets'
// names fit into an address whatever the test is called.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := tempdir.Make()
	Check(t, err)
	t.Cleanup(func() { _ = tempdir.Remove(dir) })
	return dir
}
