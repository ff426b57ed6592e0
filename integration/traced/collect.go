package traced

import (
	"bytes"
	"context"
	"path/filepath"
	"syscall"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// Serve runs shimtrace collect in the rig, as the host's service does, until the test ends.
func (in *Install) Serve(t rig.TB) {
	t.Helper()
	cmd := in.Rig.Command(context.Background(), filepath.Join(in.Bin, "shimtrace"), "collect", "--service")
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+in.Config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("collect: %v\n%s", err, said.String())
		}
	})
}
