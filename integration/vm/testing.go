package vm

import (
	"errors"
	"os"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// StartHybrid is Hybrid for the length of a test. When the machine lacks a part,
// the test is skipped, or fails if CI is set in the environment.
func StartHybrid(t rig.TB, opts HybridOptions) *Guest {
	t.Helper()
	g, err := Hybrid(t.Context(), opts)
	return started(t, g, g, err)
}

func started[G any](t rig.TB, g G, base *Guest, err error) G {
	t.Helper()
	var absent *rig.MissingError
	switch {
	case errors.As(err, &absent) && os.Getenv("CI") == "":
		t.Skipf("%v", err)
	case err != nil:
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the guest's console:\n%s", base.console.tail())
		}
		if err := base.Close(); err != nil {
			t.Errorf("close the guest: %v", err)
		}
	})
	return g
}
