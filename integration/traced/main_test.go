package traced_test

import (
	"os"
	"testing"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit"
)

func TestMain(m *testing.M) {
	code := m.Run()
	traced.Clean()
	os.RemoveAll(previousDir)
	os.Exit(code)
}

// each runs a test on every version of containerd, in a rig with runc, bare and
// wrapped. The versions run at the same time.
func each(t *testing.T, opts traced.Options, test func(t *testing.T, in *traced.Install)) {
	for _, v := range rig.Versions {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			opts := opts
			opts.Version = v
			test(t, traced.Start(t, opts))
		})
	}
}

var check = testkit.Check
