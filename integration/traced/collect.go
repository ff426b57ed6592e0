package traced

import (
	"bytes"
	"context"
	"path/filepath"
	"syscall"
	"time"

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
		// A relay that is about to end would start another one, which serves programs on.
		for end := time.Now().Add(relaysEnd); len(Find(in.Rig, Relay)) > 0 && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
		}
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("collect: %v\n%s", err, said.String())
		}
	})
}

// relaysEnd bounds how long relays take to end after their containers.
const relaysEnd = 30 * time.Second
