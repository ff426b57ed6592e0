package traced_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// killRelays is an inner shim that kills the relay which is coming up beside it, as soon as
// there is one, and then does its work.
const killRelays = `case " $* " in *" start ")
	while [ -z "$hit" ]; do
		for p in $(cat /proc/$PPID/task/*/children); do
			case "$(tr '\0' ' ' < /proc/$p/cmdline)" in *" relay ") kill -KILL $p && hit=$p;; esac
		done
	done;;
esac
exec %s "$@"`

// besides returns the shim in a directory of its own, with another program in the place of
// the one that relays; none if there is no text.
func besides(t *testing.T, in *traced.Install, name, text string) (shim string) {
	t.Helper()
	dir := filepath.Join(in.Rig.Dir, name)
	check(t, os.Mkdir(dir, 0o755))
	program, err := os.ReadFile(filepath.Join(in.Bin, shimname.Program))
	check(t, err)
	shim = filepath.Join(dir, filepath.Base(in.Shim))
	check(t, os.WriteFile(shim, program, 0o755))
	if text != "" {
		script(t, dir, shimname.RelayProgram, text)
	}
	return shim
}

// Whatever of ours fails before containerd has an address: the container runs,
// and the log says why it is not traced.
func TestStartFailsOpen(t *testing.T) {
	type setup struct {
		*testing.T
		in      *traced.Install
		version rig.Version
		runtime string // what to run, if not the usual
	}
	cases := []struct {
		name string
		set  func(s *setup)
		log  string // what containerd's log says
	}{
		{"wrong mode", func(s *setup) { configure(s.T, s.in, "[trace]\nmode = 'fast'\n") }, "trace.mode"},
		{"missing configuration", func(s *setup) { check(s.T, os.Remove(s.in.Config)) }, "no such file"},
		{"journal is a file", func(s *setup) {
			check(s.T, os.RemoveAll(s.in.Journal))
			check(s.T, os.WriteFile(s.in.Journal, nil, 0o600))
			s.Cleanup(func() { os.Remove(s.in.Journal) })
		}, "open the journal"},
		{"journal on a read-only file system", func(s *setup) {
			check(s.T, os.MkdirAll(s.in.Journal, 0o700))
			inside(s.T, s.in.Rig, "mount", "-t", "tmpfs", "-o", "ro", "tmpfs", s.in.Journal)
			s.Cleanup(func() { inside(s.T, s.in.Rig, "umount", s.in.Journal) })
		}, "open the journal"},
		{"state directory cannot be made", func(s *setup) {
			configure(s.T, s.in, fmt.Sprintf("[journal]\ndir = %q\n[relay]\nstate_dir = '/proc/shimtrace'\n", s.in.Journal))
		}, "create the relays' directory"},
		{"relay cannot be started", func(s *setup) {
			// The shim runs from a file that is no more.
			s.runtime = script(s.T, s.in.Rig.Dir, "containerd-shim-runc-traced-v2", fmt.Sprintf(
				`cp %s/containerd-shim-traced-v2 /run/gone.$$ && exec 9</run/gone.$$ && rm /run/gone.$$ && exec bash -c 'exec -a "$0" /proc/self/fd/9 "$@"' "$0" "$@"`, s.in.Bin))
		}, "spawn the relay"},
		{"relay's program is not there", func(s *setup) { s.runtime = besides(s.T, s.in, "alone", "") }, "install it beside the shim"},
		{"relay ends at once", func(s *setup) { s.runtime = besides(s.T, s.in, "ends", "exit 1") }, "it died"},
		{"relay is killed", func(s *setup) {
			inner := script(s.T, s.in.Rig.Dir, "killer", fmt.Sprintf(killRelays, realShim(s.T, s.version)))
			configure(s.T, s.in, wrapping(s.in, inner, ""))
		}, "it died"},
		{"relay hangs", func(s *setup) {
			configure(s.T, s.in, fmt.Sprintf("[journal]\ndir = %q\n[relay]\nready_timeout = '300ms'\n", s.in.Journal))
			s.runtime = besides(s.T, s.in, "hangs", "exec sleep 1000")
		}, "not ready"},
		{"tracing is off", func(s *setup) {
			configure(s.T, s.in, fmt.Sprintf("[journal]\ndir = %q\n[trace]\nmode = 'off'\n", s.in.Journal))
		}, ""},
	}
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		good, err := os.ReadFile(in.Config)
		check(t, err)
		version := rig.Version(filepath.Base(t.Name()))
		for i, tt := range cases {
			t.Run(tt.name, func(t *testing.T) {
				defer configure(t, in, string(good))
				logged := len(in.Rig.Log())
				s := &setup{T: t, in: in, version: version, runtime: in.Runtime.Shim()}
				tt.set(s)
				runsUntraced(t, in, s.runtime, fmt.Sprint("c", i))
				until(t, "the log to say "+tt.log, func() bool { return strings.Contains(in.Rig.Log()[logged:], tt.log) })
			})
		}
		if n := roots(t, in); n != 0 {
			t.Errorf("%d sandboxes traced", n)
		}
		// A mistake that is not about that costs no trace. And when all is well again,
		// nothing is to be restarted.
		const inRelay = "[relay]\n"
		traced := 0
		for _, mistake := range []struct{ text, log string }{
			{"[trace\n", "expected ']'"},
			{"[trace]\nmoed = 'off'\n", "trace.moed"},
			{"[trace]\nslow = 5\n", "trace.slow: 5 is not a duration"},
			{inRelay + "state_dir = 'here'\n", "relay.state_dir"},
			{"", ""},
		} {
			text := string(good) + mistake.text
			if key, is := strings.CutPrefix(mistake.text, inRelay); is { // a section that is there
				text = strings.Replace(string(good), inRelay, inRelay+key, 1)
			}
			configure(t, in, text)
			logged := len(in.Rig.Log())
			check(t, in.Rig.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, fmt.Sprint("well", traced), "true").Check())
			settle(t, in)
			traced++
			if n := roots(t, in); n != traced {
				t.Errorf("with %q: %d sandboxes traced, want %d", mistake.text, n, traced)
			}
			until(t, "the log to say "+mistake.log, func() bool { return strings.Contains(in.Rig.Log()[logged:], mistake.log) })
		}
	})
}

// What containerd's environment says of tracing in a way that we do not understand is
// ignored, also where containerd itself does not understand it.
func TestEnvironmentFailsOpen(t *testing.T) {
	opts := traced.Options{Options: rig.Options{Env: []string{
		"OTEL_TRACES_SAMPLER=jaeger_remote", "OTEL_TRACES_SAMPLER_ARG=25%", "OTEL_PROPAGATORS=xray,", "OTEL_EXPORTER_OTLP_TIMEOUT=10s",
		"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=many", "OTEL_RESOURCE_ATTRIBUTES=city=Z\xfcrich,nothing",
	}}}
	each(t, opts, func(t *testing.T, in *traced.Install) {
		check(t, in.Rig.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, "c1", "true").Check())
		settle(t, in)
		if n := roots(t, in); n != 1 {
			t.Errorf("%d sandboxes traced, want 1", n)
		}
		until(t, "the log to name the variables", func() bool { return strings.Contains(in.Rig.Log(), "not understood") })
	})
}

// inside runs a program in the rig's namespaces.
func inside(t *testing.T, r *rig.Rig, program string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := r.Command(ctx, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
}

func TestOpenTelemetryDisabled(t *testing.T) {
	opts := traced.Options{Options: rig.Options{Env: []string{"OTEL_SDK_DISABLED=true"}}}
	each(t, opts, func(t *testing.T, in *traced.Install) {
		runsUntraced(t, in, in.Runtime.Shim(), "c1")
	})
}

// What is wrong with the inner shim, containerd is told as by the inner shim, and
// what is wrong with finding it, in words that help.
func TestFailingInnerShim(t *testing.T) {
	each(t, traced.Options{}, func(t *testing.T, in *traced.Install) {
		run := func(runtime string) (string, rig.Result) {
			res := in.Rig.Ctr("run", "--rm", "--runtime", runtime, image.Busybox, "c1", "true")
			s := &session{in: in, T: t}
			s.saw(rig.Result{Stdout: res.Stdout, Stderr: res.Stderr, Code: res.Code})
			return s.transcript(), res
		}
		real := realShim(t, rig.Version(filepath.Base(t.Name())))
		for name, start := range map[string]string{
			"with words":      `echo "no room left" >&2; exit 17`,
			"with an output":  `echo not-an-address; exit 3`,
			"without a word":  `exit 1`,
			"by a signal":     `kill -9 $$`,
			"success, no use": `echo "a backtrace" >&2; exit 0`,
		} {
			t.Run(name, func(t *testing.T) {
				inner := script(t, in.Rig.Dir, "failing", fmt.Sprintf(`case " $* " in *" start ") %s;; esac
exec %s "$@"`, start, real))
				configure(t, in, wrapping(in, inner, ""))
				bare, _ := run(inner)
				wrapped, res := run(in.Runtime.Shim())
				if name == "by a signal" {
					// A command cannot pass on its own death by another's signal.
					bare = strings.ReplaceAll(bare, "signal: killed", "exit status 1")
				}
				if d := diff(bare, wrapped); d != "" || res.Code == 0 {
					t.Errorf("wrapped differs from bare: %s", d)
				}
				settle(t, in)
			})
		}
		t.Run("missing", func(t *testing.T) {
			// The one of that name is run instead.
			configure(t, in, wrapping(in, "/no/such/shim", ""))
			logged := len(in.Rig.Log())
			if text, res := run(in.Runtime.Shim()); res.Code != 0 {
				t.Errorf("the container does not run: %s", text)
			}
			until(t, "the log to say so", func() bool { return strings.Contains(in.Rig.Log()[logged:], "/no/such/shim") })
			settle(t, in)
		})
	})
}
