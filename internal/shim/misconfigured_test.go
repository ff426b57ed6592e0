package shim

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

// misconfigured is a host where the wrapper of Kata's shim is run as containerd runs
// it, with inner shims that say which one they are.
type misconfigured struct {
	*testing.T
	dir     string
	link    string
	bundle  string
	config  string
	env     []string
	log     int // the pipe, open for reading without waiting
	closeIn func()
}

// The inner shims: the one that the configuration names, the one that the bundle's
// state names, and the one that is found by its name.
const named, started, obvious = "named", "started", "obvious"

func newMisconfigured(t *testing.T) *misconfigured {
	t.Helper()
	dir, err := tempdir.Make()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Who records a delete goes on after it, and would make its directories again.
		shimtest.Eventually(t, "all processes of the shim to end", func() bool { return !runsIn(dir) })
		os.RemoveAll(dir)
	})
	h := &misconfigured{T: t, dir: dir, link: filepath.Join(dir, "wrap", "containerd-shim-kata-qemu-traced-v2"), bundle: filepath.Join(dir, "bundle"), config: filepath.Join(dir, "config.toml")}
	for _, sub := range []string{"wrap", "bin", "bundle"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(shimtest.Program(t), h.link), unix.Mkfifo(filepath.Join(h.bundle, "log"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if h.log, err = unix.Open(filepath.Join(h.bundle, "log"), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(h.log) })
	for _, who := range []string{named, started, obvious} {
		h.inner(who)
	}
	h.serve()
	return h
}

// path is where an inner shim is.
func (h *misconfigured) path(who string) string {
	if who == obvious {
		return filepath.Join(h.dir, "bin", "containerd-shim-kata-qemu-v2")
	}
	return filepath.Join(h.dir, who)
}

func (h *misconfigured) socket() string { return filepath.Join(h.dir, "inner.sock") }

func (h *misconfigured) inner(who string) {
	text := fmt.Sprintf("#!/bin/sh\necho \"%s $*\" >> %s/called\ncase \" $* \" in *\" start \") echo unix://%s;; *) printf '%s\\377%%s\\000' \"$@\";; esac\nexit 0\n", who, h.dir, h.socket(), who)
	if err := os.WriteFile(h.path(who), []byte(text), 0o755); err != nil {
		h.Fatal(err)
	}
}

// serve is the inner shim's process after start, as far as the relay sees it.
func (h *misconfigured) serve() {
	l, err := net.Listen("unix", h.socket())
	if err != nil {
		h.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
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
	}()
	h.closeIn = func() { l.Close(); <-done }
	h.Cleanup(func() {
		h.closeIn()
		// The relay leaves when the inner shim has.
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			left, _ := filepath.Glob(filepath.Join(h.dir, "state*", "s", "*.sock"))
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				h.Errorf("relays have left %q", left)
				return
			}
		}
	})
}

// run runs the wrapper and returns what it printed and its exit code.
func (h *misconfigured) run(args ...string) (stdout, stderr string, code int) {
	h.Helper()
	cmd := exec.Command(h.link, args...)
	cmd.Args[0] = h.link
	cmd.Dir = h.bundle
	cmd.Env = append([]string{"PATH=" + filepath.Join(h.dir, "bin") + ":/usr/bin:/bin", "SHIMTRACE_CONFIG=" + h.config}, h.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// called returns which inner shims were run, and forgets it.
func (h *misconfigured) called() string {
	text, _ := os.ReadFile(filepath.Join(h.dir, "called"))
	os.Remove(filepath.Join(h.dir, "called"))
	return string(text)
}

// logged returns what was logged since the last time, by processes that have ended.
func (h *misconfigured) logged() string {
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(h.log, buf)
		if err == unix.EINTR {
			continue
		}
		if n <= 0 {
			return string(all)
		}
		all = append(all, buf[:n]...)
	}
}

// TestNothingInAFileOrAnEnvironmentEndsAContainer runs everything that containerd runs
// with everything that can be wrong: the right inner shim does it, as if we were not
// there.
func TestNothingInAFileOrAnEnvironmentEndsAContainer(t *testing.T) {
	const shim = "\n[runtime.kata-qemu]\nshim = %q\n"
	text := func(format string) func(h *misconfigured) {
		return func(h *misconfigured) {
			base := fmt.Sprintf("[journal]\ndir = \"%s/journal\"\n[relay]\nstate_dir = \"%s/state\"\nready_timeout = \"30s\"\n[agent]\nreceive = \"off\"\ninject = \"off\"\n[jaeger]\nreceive = \"off\"\n", h.dir, h.dir)
			if strings.Contains(format, "%q") {
				format = fmt.Sprintf(format, h.path(named))
			}
			if err := os.WriteFile(h.config, []byte(base+format), 0o600); err != nil {
				h.Fatal(err)
			}
		}
	}
	variables := func(env ...string) func(h *misconfigured) {
		return func(h *misconfigured) {
			text(shim)(h)
			h.env = env
		}
	}
	for name, tt := range map[string]struct {
		set    func(h *misconfigured)
		inner  string // which one start, -info and -v run
		traced bool
		log    string // what start logs
	}{
		"nothing":                     {text(shim), named, true, ""},
		"a syntax error after it":     {text(shim + "[trace\nslow = = 1\n"), named, true, "line 14, column 7"},
		"a syntax error before it":    {text("]]\n" + shim), named, true, "line 11, column 1"},
		"an open string before it":    {text("[trace]\nslow = \"\"\"\n" + shim), named, true, "line 12, column 1"},
		"an unknown key":              {text(shim + "[trace]\nmoed = 'off'\n"), named, true, "trace.moed"},
		"an unknown section":          {text(shim + "[runtime.kata-qemu.tarce]\nmode = 'off'\n"), named, true, "kata-qemu.tarce"},
		"a value of another kind":     {text(shim + "[log]\nlevel = 7\n"), named, true, "log.level"},
		"a wrong value":               {text(shim + "[trace]\nsampler = 'all'\n"), named, true, "trace.sampler"},
		"a wrong mode":                {text(shim + "[trace]\nmode = 'fast'\n"), named, false, "trace.mode"},
		"a duration without a unit":   {text(shim + "[export]\ntimeout = 10\n"), named, true, "export.timeout: 10 is not a duration"},
		"another runtime's section":   {text(shim + "[runtime.runc.trace]\nmode = 7\n"), named, true, "runtime.runc.trace.mode"},
		"one journal, two collectors": {text(shim + "[runtime.kata-qemu.export]\nendpoint = 'http://127.0.0.1:9'\n"), named, false, "it differs"},
		"a byte order mark":           {text("\xef\xbb\xbf" + shim), named, true, "line 11"},
		"a Latin-1 comment":           {text("# f\xfcr Z\xfcrich\n" + shim), named, true, ""},
		"a Latin-1 value":             {text("[resource]\ncity = 'Z\xfcrich'\n" + shim), named, true, "line 12, column 10"},
		"a zero byte":                 {text("\x00\n" + shim), named, true, "line 11"},
		"the shim's line is broken":   {text("[runtime.kata-qemu]\nshim = /opt/kata/bin/shim\n"), obvious, true, "line 12, column 8"},
		"the shim's value is wrong":   {text("[runtime.kata-qemu]\nshim = 7\n"), obvious, true, "runtime.kata-qemu.shim"},
		"the shim is not there":       {text("[runtime.kata-qemu]\nshim = '/no/such/shim'\n"), obvious, true, "/no/such/shim"},
		"the shim is the wrapper":     {func(h *misconfigured) { text("[runtime.kata-qemu]\nshim = '" + h.link + "'\n")(h) }, obvious, true, "shimtrace itself"},
		"its section is misnamed":     {text("[runtime.kata_qemu]\nshim = %q\n"), obvious, true, ""},
		"no file":                     {func(h *misconfigured) {}, obvious, false, "no such file"},
		"a directory":                 {func(h *misconfigured) { h.config = h.dir }, obvious, false, "not a regular file"},
		"a pipe":                      {func(h *misconfigured) { h.config = filepath.Join(h.bundle, "log") }, obvious, false, "not a regular file"},
		"a device":                    {func(h *misconfigured) { h.config = "/dev/full" }, obvious, false, "not a regular file"},
		"a file too large":            {text(shim + strings.Repeat("#\n", 1<<20)), named, true, "is not read"},
		"unknown samplers":            {variables("OTEL_TRACES_SAMPLER=jaeger_remote", "OTEL_TRACES_SAMPLER_ARG=endpoint=http://x"), named, true, "OTEL_TRACES_SAMPLER"},
		"a percentage":                {variables("OTEL_TRACES_SAMPLER_ARG=25%"), named, true, "25%"},
		"unknown protocols":           {variables("OTEL_EXPORTER_OTLP_PROTOCOL=http/json"), named, true, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		"endpoints of another kind":   {variables("OTEL_EXPORTER_OTLP_ENDPOINT=unix:/run/x.sock"), named, true, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		"unknown propagators":         {variables("OTEL_PROPAGATORS=xray,ottrace"), named, true, "OTEL_PROPAGATORS"},
		"broken attributes":           {variables("OTEL_RESOURCE_ATTRIBUTES=city=Z\xfcrich,x,%zz=1"), named, true, "OTEL_RESOURCE_ATTRIBUTES"},
		"numbers that are none":       {variables("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=x", "OTEL_BSP_SCHEDULE_DELAY=x", "OTEL_EXPORTER_OTLP_TIMEOUT=10s", "OTEL_SDK_DISABLED=perhaps", "OTEL_LOG_LEVEL=debug", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_GO_LOG_VERBOSITY_LEVEL=99", "OTEL_GO_X_OBSERVABILITY=true"), named, true, "OTEL_EXPORTER_OTLP_TIMEOUT"},
		"all untidy":                  {variables("OTEL_TRACES_SAMPLER= \"ParentBased_Always_On\" ", "OTEL_TRACES_SAMPLER_ARG=0.25 ", "OTEL_PROPAGATORS=B3,", "OTEL_TRACES_EXPORTER=None\n"), named, true, ""},
		"no PATH":                     {func(h *misconfigured) { text(shim)(h); h.env = []string{"PATH="} }, named, true, ""},
		"disabled":                    {variables("OTEL_SDK_DISABLED=TRUE"), named, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := newMisconfigured(t)
			tt.set(h)
			ours := []string{"-namespace", "ns", "-address", "/no.sock", "-publish-binary", "/bin/false", "-id", "c1"}
			check := func(action, want, stdout string, args []string) {
				t.Helper()
				out, errs, code := h.run(args...)
				if called, wanted := h.called(), want+" "+strings.Join(args, " ")+"\n"; called != wanted || code != 0 || errs != "" {
					t.Errorf("%s ran %q, want %q; exit code %d, %q", action, called, wanted, code, errs)
				}
				if stdout != "" && out != stdout {
					t.Errorf("%s printed %q, want %q", action, out, stdout)
				}
			}
			said := func(who string, args ...string) string {
				out := ""
				for _, a := range args {
					out += who + "\xff" + a + "\x00"
				}
				return out
			}
			for _, args := range [][]string{{"-info"}, {"-v"}, append(ours, "checkpoint")} {
				check(args[len(args)-1], tt.inner, said(tt.inner, args...), args)
			}
			// A delete without a state is of a container that was not traced.
			remove := append(ours, "-bundle", h.bundle, "delete")
			check("delete", tt.inner, said(tt.inner, remove...), remove)
			h.logged()

			start := append(ours, "start")
			out, errs, code := h.run(start...)
			if called, wanted := h.called(), tt.inner+" "+strings.Join(start, " ")+"\n"; called != wanted || code != 0 || errs != "" {
				t.Errorf("start ran %q, want %q; exit code %d, %q", called, wanted, code, errs)
			}
			bare := "unix://" + h.socket() + "\n"
			if traced := out != bare && strings.HasPrefix(out, "unix:///"); traced != tt.traced || !traced && out != bare {
				t.Errorf("start answered %q, traced %t", out, traced)
			}
			log := h.logged()
			if !strings.Contains(log, tt.log) || tt.log == "" && strings.Contains(log, "level=ERROR") {
				t.Errorf("start logged %q, want %q in it", log, tt.log)
			}
			if n := strings.Count(log, "not understood"); n > 1 {
				t.Errorf("said %d times: %s", n, log)
			}

			// The one that was started ends what it has started, whatever is configured by now.
			file := filepath.Join(h.bundle, state.File)
			intact := h.config
			h.config = h.dir
			check("delete", tt.inner, said(tt.inner, remove...), remove)
			h.config = intact
			for _, version := range []int{state.Version, state.Version + 1} {
				left := fmt.Sprintf(`{"version":%d,"trace":{"trace_id":"%032x","span_id":"%016x"},"inner":%q,"inner_socket":"/no.sock"}`, version, 1, 1, h.path(started))
				if err := os.WriteFile(file, []byte(left), 0o600); err != nil {
					t.Fatal(err)
				}
				check("delete", started, said(started, remove...), remove)
			}
			// A state that names nothing to be run says nothing.
			for _, left := range []string{"", "{", `{"inner":"started"}`, `{"inner":"/no/such/shim"}`, fmt.Sprintf(`{"inner":%q}`, h.link)} {
				if err := os.WriteFile(file, []byte(left), 0o600); err != nil {
					t.Fatal(err)
				}
				check("delete", tt.inner, said(tt.inner, remove...), remove)
			}
		})
	}
}

// runsIn reports whether a process was started by a path in dir.
func runsIn(dir string) bool {
	return len(testkit.Processes(func(args []string) bool { return strings.HasPrefix(args[0], dir+"/") })) > 0
}
