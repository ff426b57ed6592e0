package rig

import (
	"context"
	"errors"
	"os"
)

// TB is the part of testing.TB that Start needs.
type TB interface {
	Helper()
	Context() context.Context
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Start starts a rig that lives as long as the test. Leaks fail the test; the
// end of containerd's log is printed if the test fails. When the machine lacks
// something, the test is skipped, or fails if CI is set in the environment.
func Start(t TB, opts Options) *Rig {
	t.Helper()
	r, err := New(t.Context(), opts)
	var absent *MissingError
	switch {
	case errors.As(err, &absent) && os.Getenv("CI") == "":
		t.Skipf("%v", err)
	case err != nil:
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		failed := t.Failed()
		log := r.Log()
		if err := r.Close(); err != nil {
			failed = true
			t.Errorf("close rig: %v", err)
		}
		if failed {
			t.Logf("end of containerd's log:\n%s", tail(log))
		}
	})
	return r
}
