// Package testkit is what tests of many packages need.
package testkit

import (
	"testing"
	"time"
)

// patience is far more than any condition takes, on a busy machine, too.
const patience = 2 * time.Minute

// Check ends the test if there is an error.
func Check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Until waits until a condition holds, and ends the test if it does not in two minutes.
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}
