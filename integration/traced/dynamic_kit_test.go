package traced_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// onDemand is tracing that has to be switched on.
const onDemand = unhurried + "mode = 'dynamic'\n"

// Names and attributes of what is about the switching.
const (
	switchedOn  = "tracing switched on"
	switchedOff = "tracing switched off"
)

// shimtrace runs the operator's tool where the relays are.
func shimtrace(t *testing.T, in *traced.Install, args ...string) rig.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := in.Rig.Command(ctx, filepath.Join(in.Bin, "shimtrace"), args...)
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+in.Config, "SUDO_USER=alice")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	res := rig.Result{Args: append([]string{"shimtrace"}, args...), Stdout: stdout.String(), Stderr: stderr.String(), Err: err}
	if cmd.ProcessState != nil {
		res.Code, res.Err = cmd.ProcessState.ExitCode(), nil
	}
	return res
}

// said is what the tool says of a sandbox.
type said struct {
	Sandbox, Mode, Error string
	On, Changed          bool
	TraceID              string `json:"trace_id"`
	Until                time.Time
	Facts                *struct {
		PID      int
		Recorded *uint64 `json:"recorded_spans"`
		Waiting  *int64  `json:"waiting_spans"`
	}
}

// turn runs the tool with --json and returns what it says, by sandbox.
func turn(t *testing.T, in *traced.Install, args ...string) map[string]said {
	t.Helper()
	if args[0] == "status" {
		return statusOf(t, in, args[1:]...)
	}
	res := shimtrace(t, in, append(args, "--json")...)
	check(t, res.Check())
	all := map[string]said{}
	for line := range strings.Lines(res.Stdout) {
		var st said
		check(t, json.Unmarshal([]byte(line), &st))
		all[st.Sandbox] = st
	}
	return all
}

// statusOf is turn for shimtrace status.
func statusOf(t *testing.T, in *traced.Install, names ...string) map[string]said {
	t.Helper()
	res := shimtrace(t, in, append([]string{"status", "--json", "--wait", "30s"}, names...)...)
	check(t, res.Check())
	var picture struct{ Relays []said }
	check(t, json.Unmarshal([]byte(res.Stdout), &picture))
	all := map[string]said{}
	for _, st := range picture.Relays {
		all[st.Sandbox] = st
	}
	return all
}

// turnOne is turn for one sandbox.
func turnOne(t *testing.T, in *traced.Install, sandbox string, args ...string) said {
	t.Helper()
	st, ok := turn(t, in, args...)[sandbox]
	if !ok {
		t.Fatalf("shimtrace %q says nothing of %s", args, sandbox)
	}
	return st
}

// wantSilence checks that nothing has been written to the journal.
func wantSilence(t *testing.T, in *traced.Install) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(in.Journal, "*.seg"))
	check(t, err)
	if len(segments) > 0 {
		t.Errorf("tracing is off, but the journal has %q", segments)
	}
}

// wantRooted checks that every trace has its root, that it comes first, and that
// every parent is there.
func wantRooted(t *testing.T, spans []otlprecv.Span) {
	t.Helper()
	known, rooted := map[string]bool{}, map[string]bool{}
	for _, s := range spans {
		if s.ParentID == "" && (s.Name != switchedOn || rooted[s.TraceID]) {
			t.Errorf("%s has no parent", s.Name)
		}
		if s.Name == switchedOn {
			rooted[s.TraceID] = true
		}
		if !rooted[s.TraceID] {
			t.Errorf("%s was there before its root", s.Name)
		}
		known[s.TraceID+s.ID] = true
	}
	for _, s := range spans {
		if s.ParentID != "" && !known[s.TraceID+s.ParentID] {
			t.Errorf("the parent of %s is missing", s.Name)
		}
	}
}

// holdingRunc is a directory with a runc that does not exec anything while its file
// "hold" is there, and then makes the file "held".
func holdingRunc(t *testing.T, of string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	script(t, dir, "runc", `case " $* " in *" exec "*)
	while [ -e `+dir+`/hold ]; do : >`+dir+`/held; sleep 0.02; done;;
esac
exec `+of+`/runc "$@"`)
	return dir
}

// hold has the next exec hang.
func hold(t *testing.T, dir string) {
	t.Helper()
	_ = os.Remove(filepath.Join(dir, "held"))
	check(t, os.WriteFile(filepath.Join(dir, "hold"), nil, 0o600))
}

// untilHeld waits until an exec hangs.
func untilHeld(t *testing.T, dir string) {
	t.Helper()
	until(t, "an exec to hang", func() bool {
		_, err := os.Stat(filepath.Join(dir, "held"))
		return err == nil
	})
}

// version is that of the test that each runs.
func version(t *testing.T) rig.Version { return rig.Version(filepath.Base(t.Name())) }

// dialShort connects to a socket of the rig's, by a path that is short enough.
func dialShort(t *testing.T, socket string) net.Conn {
	t.Helper()
	short := filepath.Join(t.TempDir(), "s")
	check(t, os.Symlink(socket, short))
	conn, err := net.Dial("unix", short)
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}
