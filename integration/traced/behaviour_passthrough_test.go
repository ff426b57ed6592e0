package traced_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// A desk is where a test runs a shim's commands by hand, without a containerd, on
// an inner shim that is mostly a script.
type desk struct {
	*testing.T
	dir     string // short, for the sockets in it
	wrapped string // the wrapper of inner
	inner   string
}

func newDesk(t *testing.T, inner string) *desk {
	t.Helper()
	bin, err := traced.Bin()
	check(t, err)
	dir, err := tempdir.Make()
	check(t, err)
	d := &desk{T: t, dir: dir, inner: inner, wrapped: filepath.Join(bin, "containerd-shim-runc-traced-v2")}
	t.Cleanup(func() {
		until(t, "the relays to end", func() bool { return len(d.relays()) == 0 })
		if left := filesOfRelays(t, filepath.Join(dir, "state/s")); len(left) > 0 {
			t.Errorf("relays have left %q", left)
		}
		os.RemoveAll(dir)
	})
	check(t, os.Mkdir(filepath.Join(dir, "bundle"), 0o700))
	config := fmt.Sprintf("%sstate_dir = %q\n[journal]\ndir = %q\n[runtime.runc]\nshim = %q\n", traced.Patient, dir+"/state", dir+"/journal", inner)
	check(t, os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o600))
	return d
}

// scripted is a desk whose inner shim is a script.
func scripted(t *testing.T, text string) *desk {
	t.Helper()
	dir := t.TempDir()
	return newDesk(t, script(t, dir, "inner", text))
}

// output is what a command gave.
type output struct {
	stdout, stderr []byte
	code           int
}

func (d *desk) command(ctx context.Context, program, stdin string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = filepath.Join(d.dir, "bundle")
	cmd.Env = []string{
		"PATH=" + tool(d.T, toolset.Runc) + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"SHIMTRACE_CONFIG=" + filepath.Join(d.dir, "config.toml"),
		"TTRPC_ADDRESS=" + filepath.Join(d.dir, "no.sock"),
		"A_VALUE=with\nlines and \xff bytes",
	}
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

func (d *desk) run(program, stdin string, args ...string) output {
	d.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := d.command(ctx, program, stdin, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		d.Fatalf("%s %q: %v", program, args, err)
	}
	return output{stdout.Bytes(), stderr.Bytes(), cmd.ProcessState.ExitCode()}
}

// same runs the command with the inner shim and its wrapper; what both give must be
// the same, byte for byte.
func (d *desk) same(stdin string, args ...string) output {
	d.Helper()
	bare, wrapped := d.run(d.inner, stdin, args...), d.run(d.wrapped, stdin, args...)
	if !bytes.Equal(bare.stdout, wrapped.stdout) {
		d.Errorf("%q prints\n%q bare,\n%q wrapped", args, bare.stdout, wrapped.stdout)
	}
	if !bytes.Equal(bare.stderr, wrapped.stderr) {
		d.Errorf("%q prints as errors\n%q bare,\n%q wrapped", args, bare.stderr, wrapped.stderr)
	}
	if bare.code != wrapped.code {
		d.Errorf("%q exits with %d bare, %d wrapped", args, bare.code, wrapped.code)
	}
	return bare
}

// relays are the ids of the relay processes of this desk.
func (d *desk) relays() []int {
	return testkit.Processes(func(args []string) bool { return args[len(args)-1] == "relay" && testkit.With(d.dir)(args) })
}

// start and remove are the arguments as containerd has them.
var start = []string{"-namespace", "ns", "-address", "/no/containerd.sock", "-publish-binary", "/bin/false", "-id", "c1", "start"}

func (d *desk) remove() []string {
	return []string{"-namespace", "ns", "-address", "/no/containerd.sock", "-publish-binary", "/bin/false", "-id", "c1", "-bundle", filepath.Join(d.dir, "bundle"), "delete"}
}

// tell is an inner shim that tells all it was given, in bytes that are no text, and
// fails.
const tell = `printf '\377\000%s\001' "$@"; cat /proc/$$/environ; cat; printf 'and\000this' >&2; exit 4`

func TestCommandsPassThrough(t *testing.T) {
	d := scripted(t, tell)
	for _, args := range [][]string{
		{"-info"}, {"-v"}, {}, {"-h"}, {"--unknown", "x y", ""}, {"-id", "c1", "checkpoint"}, start, d.remove(),
	} {
		if got := d.same("in\x00\xffput", args...); got.code != 4 || !bytes.Contains(got.stdout, []byte("A_VALUE=with\n")) {
			t.Errorf("%q: the inner shim was not asked: %q", args, got.stdout)
		}
	}
}

// The real shims' -v and -info, with and without options on their input.
func TestRealInfoPassesThrough(t *testing.T) {
	for _, v := range rig.Versions {
		t.Run(string(v), func(t *testing.T) {
			shim := realShim(t, v)
			if _, err := os.Stat(shim); err != nil {
				t.Skipf("needs %s: go -C integration run ./tools", shim)
			}
			d := newDesk(t, shim)
			if got := d.same("", "-v"); got.code != 0 || len(got.stdout) == 0 {
				t.Errorf("-v: %q", got.stderr)
			}
			// An Any of runc's Options that name a program (field 3, binary_name).
			const kind, options = "containerd.runc.v1.Options", "\x1a\x04runc"
			for _, stdin := range []string{"", "\x0a" + string(rune(len(kind))) + kind + "\x12" + string(rune(len(options))) + options, "no protobuf"} {
				got := d.same(stdin, "-info")
				if v == rig.V24 && stdin == "" && !bytes.Contains(got.stdout, []byte("io.containerd.runc.v2")) {
					t.Errorf("-info: %q", got.stdout)
				}
			}
		})
	}
}

// Answers to start that no relay can stand for are handed on as they came.
func TestAnswersThatAreNotRelayed(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing":               `:`,
		"words":                 `echo this is no address`,
		"bytes":                 `printf '\377\376\000\001'`,
		"broken JSON":           `echo '{"address":'`,
		"plain, VSOCK":          `echo vsock://3:1024`,
		"JSON, hybrid VSOCK":    `echo '{"version":3,"address":"hvsock:///run/vm.sock:1024","protocol":"ttrpc"}'`,
		"JSON, gRPC":            `echo '{"version":3,"address":"unix:///run/x.sock","protocol":"grpc"}'`,
		"protobuf, gRPC":        `printf '\010\003\022\022unix:///run/x.sock\032\004grpc'`,
		"protobuf, VSOCK":       `printf '\010\003\022\016vsock://3:1024\032\005ttrpc'`,
		"a socket of nobody":    `echo unix:///run/no/such/shim.sock`,
		"noise beside":          `echo noise >&2; echo vsock://3:1024; echo more noise >&2`,
		"noise and failure":     `echo noise >&2; printf 'half an ans'; exit 17`,
		"noise and no success":  `echo "a backtrace" >&2`,
		"an abstract socket":    `echo '@/no/such/shim'`,
		"JSON, without address": `echo '{"version":3}'`,
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, answer).same("options", start...)
		})
	}
}

// A start that containerd gives up on takes the inner shim's with it, and the relay.
func TestKilledStart(t *testing.T) {
	d := scripted(t, `echo $$ > pid; exec sleep 1000`)
	cmd := d.command(t.Context(), d.wrapped, "", start...)
	check(t, cmd.Start())
	defer cmd.Wait()
	var inner int
	until(t, "the inner shim's start", func() bool {
		text, _ := os.ReadFile(filepath.Join(d.dir, "bundle/pid"))
		inner, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		return inner != 0 && len(d.relays()) == 1
	})
	check(t, cmd.Process.Kill())
	until(t, "the inner shim's start to end", func() bool { return unix.Kill(inner, 0) != nil })
	until(t, "the relay to end", func() bool { return len(d.relays()) == 0 })
}

// silent is an inner shim's socket that accepts and says nothing, until closed.
func silent(t *testing.T) (sock string, close func()) {
	t.Helper()
	dir, err := tempdir.Make()
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock = filepath.Join(dir, "sock")
	l, err := net.Listen("unix", sock)
	check(t, err)
	gone := make(chan struct{})
	go func() {
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, c := range conns {
			c.Close()
		}
		gone <- struct{}{}
	}()
	return sock, func() { l.Close(); <-gone }
}

// Starts that race for one inner shim, none of which finds a relay, get the same one.
func TestRacingFirstStarts(t *testing.T) {
	sock, closeInner := silent(t)
	d := scripted(t, "echo unix://"+sock)
	const starts = 6
	answers := make([]string, starts)
	check(t, together(starts, func(i int) error {
		out, err := d.command(context.Background(), d.wrapped, "", start...).CombinedOutput()
		answers[i] = string(out)
		return err
	}))
	for _, a := range answers {
		if a != answers[0] || !strings.HasPrefix(a, "unix://"+d.dir+"/state/s/") {
			t.Errorf("answers %q, want the same relay", answers)
			break
		}
	}
	// Relays that came too late end by themselves, after their starts have answered.
	until(t, "all relays but one to be gone", func() bool { return len(d.relays()) == 1 })
	closeInner()
}

// The delete of a container that is traced prints what the inner shim's does, with
// the relay alive as with the relay killed.
func TestDeletePassesThrough(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("relay killed %t", killed), func(t *testing.T) {
			sock, closeInner := silent(t)
			d := scripted(t, fmt.Sprintf(`case " $* " in
*" start ") echo unix://%s;;
*) %s;;
esac`, sock, tell))
			bundle := filepath.Join(d.dir, "bundle")
			bare, wrapped := d.run(d.inner, "", start...), d.run(d.wrapped, "", start...)
			if want := "unix://" + d.dir + "/state/s/"; !strings.HasPrefix(string(wrapped.stdout), want) ||
				len(wrapped.stderr) != 0 || wrapped.code != bare.code || bytes.HasSuffix(bare.stdout, []byte("\n")) != bytes.HasSuffix(wrapped.stdout, []byte("\n")) {
				t.Fatalf("start gave %q and %q, want %s…", wrapped.stdout, wrapped.stderr, want)
			}
			if _, err := os.Stat(filepath.Join(bundle, "shimtrace.json")); err != nil {
				t.Fatalf("the bundle does not say that it is traced: %v", err)
			}
			if killed {
				for _, pid := range d.relays() {
					check(t, unix.Kill(pid, unix.SIGKILL))
				}
				until(t, "the relay to be gone", func() bool { return len(d.relays()) == 0 })
			}
			if got := d.same("", d.remove()...); got.code != 4 {
				t.Errorf("delete exits with %d, want the inner shim's 4", got.code)
			}
			closeInner()
		})
	}
}
