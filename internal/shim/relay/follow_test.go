package relay

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/export"
	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/control"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// followed is a relay that follows a file, between clients and a shim that answers Start and
// Pause.
type followed struct {
	*Process
	t       *testing.T
	path    string
	journal string
	log     strings.Builder
	dial    func() *ttrpc.Client
	end     func() // returns when everything is in the journal
}

// newFollowed starts one that began with the text. What the text says of the journal is
// replaced.
func newFollowed(t *testing.T, text string) *followed {
	t.Helper()
	dir := t.TempDir()
	f := &followed{t: t, path: filepath.Join(dir, "config.toml"), journal: filepath.Join(dir, "journal")}
	f.write(text)
	getenv := func(name string) string { return map[string]string{config.PathEnv: f.path}[name] }
	source := config.NewSource("x", getenv)
	cfg, report := config.Load("x", getenv)
	cfg.Journal.Dir = f.journal
	log := slog.New(slog.NewTextHandler(&f.log, nil))
	f.Process = &Process{Options: Options{Config: cfg, Source: source, Report: report, Level: new(slog.LevelVar), Log: log}, known: make(chan struct{})}
	f.begin(f.Options)
	f.Log, f.logs = telemetry.Correlate(log)
	tel, err := telemetry.Open(cfg, state.Identity{Sandbox: "box", Inner: "containerd-shim-x-v2"}, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.tell(tel)
	f.state = state.State{Version: state.Version, Trace: state.NewTraceContext(export.NewRoot(t.Context(), cfg.Trace)), Started: time.Now(), Sandbox: "box"}
	if cfg.Trace.Mode == "dynamic" {
		f.state.Dynamic, f.state.Trace.Sampled = true, false
	}
	f.paths = state.PathsOf(dir, filepath.Join(dir, "inner"))
	if err := f.paths.Create(); err != nil {
		t.Fatal(err)
	}
	f.know(saved{})
	f.relayCalls(dir)
	return f
}

// relayCalls serves the shim and the relay.
func (f *followed) relayCalls(dir string) {
	f.serving.relay = f.relay()
	dial, hangUp := serveCalls(f.t, dir, f.serving.relay, "Pause", "Start")
	f.dial = dial
	f.end = sync.OnceFunc(func() {
		hangUp()
		f.sandbox.exports.Wait()
		f.sandbox.switcher.close()
		f.tel.Close(f.Log, 0)
	})
	f.t.Cleanup(f.end)
}

func (f *followed) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// edit writes the file, and has the relay read it, as if the guard had told of it.
func (f *followed) edit(text string) {
	f.t.Helper()
	f.write(text)
	f.reread(true)
}

// start ends the sandbox's start, and waits until its root is over.
func (f *followed) start(c *ttrpc.Client) {
	f.t.Helper()
	if err := c.Call(f.t.Context(), "containerd.task.v3.Task", "Start", &task.StartRequest{ID: "box"}, new(emptypb.Empty)); err != nil {
		f.t.Fatal(err)
	}
	if !state.Within(20*time.Second, func() {
		for f.sandbox.starting() {
			time.Sleep(time.Millisecond)
		}
		f.sandbox.exports.Wait()
	}) {
		f.t.Fatal("the start is not over")
	}
}

// recorded returns the containers of the Pauses in the journal, and the names of other spans
// but calls, in their order.
func (f *followed) recorded() (pauses, others []string) {
	f.t.Helper()
	_, err := journal.Scan(f.journal, func(r journal.Record) error {
		td, err := r.Traces()
		for _, rs := range td.GetResourceSpans() {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					if !strings.Contains(s.Name, "/") {
						others = append(others, s.Name)
					}
					for _, a := range s.Attributes {
						if a.Key == names.Container && strings.HasSuffix(s.Name, "/Pause") {
							pauses = append(pauses, a.Value.GetStringValue())
						}
					}
				}
			}
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return pauses, others
}

// TestFollow: what begins after an edit goes by it, and a bad edit changes nothing.
func TestFollow(t *testing.T) {
	f := newFollowed(t, "")
	c := f.dial()
	for _, step := range []struct {
		name, text string // what is called is the container
		recorded   bool
	}{
		{"begun", "", true},
		{"quiet", "trace = { quiet = ['Pause'], slow = '1h' }", false},
		{"slow", "trace = { quiet = ['Pause'], slow = '1ns' }", true},
		{"not sampled", "trace.sampler = 'always_off'", false},
		{"bad", "trace.sampler = 'always'", false},
		{"torn", "trace.sampler = 'always_on", false},
		{"mended", "trace.sampler = 'always_on'", true},
		{"of another runtime", "[runtime.y.trace]\nsampler = 'always_off'", true},
		{"of the runtime", "[runtime.x.trace]\nsampler = 'always_off'", false},
		{"defaults", "", true},
	} {
		f.edit(step.text)
		if err := pause(c, step.name); err != nil {
			t.Error(err)
		}
		if !step.recorded {
			continue
		}
		defer func() {
			if pauses, _ := f.recorded(); !slices.Contains(pauses, step.name) {
				t.Errorf("%q is not recorded", step.name)
			}
		}()
	}
	f.end()
	if pauses, _ := f.recorded(); len(pauses) != 5 {
		t.Errorf("recorded are %q", pauses)
	}
	if n := strings.Count(f.log.String(), "the configuration is not taken"); n != 2 {
		t.Errorf("%d lines say what is wrong, of two bad edits:\n%s", n, f.log.String())
	}
}

// TestFollowSays: what is wrong with the file is said until it is mended, and what a relay
// cannot change is named.
func TestFollowSays(t *testing.T) {
	f := newFollowed(t, "[trace]\nslow = 'soon'")
	said := func() *control.Configuration { return f.answer().Configuration }
	if s := said(); s.Problem == nil || s.Problem.Line != 2 || s.Problem.Column != 8 || !strings.Contains(s.Problem.Error, f.path) || !slices.Equal(s.Files, []string{f.path}) {
		t.Errorf("at the beginning: %+v", s)
	}
	since := said().Problem.Since
	f.edit("[trace]\nslow = 'never'")
	if s := said(); s.Problem == nil || !strings.Contains(s.Problem.Error, "never") || !s.Problem.Since.Equal(since) {
		t.Errorf("still bad: %+v", s.Problem)
	}
	f.edit("[trace]\nslow = '1s'\n[journal]\nmax_bytes = '1GiB'\n[export]\nendpoint = 'http://127.0.0.1:1'\n")
	if s := said(); s.Problem != nil || !slices.Equal(s.NewPods, []string{"journal.dir", "journal.max_bytes"}) || f.now().Trace.Slow != config.Duration(time.Second) {
		t.Errorf("mended: %+v", s)
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	f.reread(true)
	if s := said(); s.Problem == nil || !strings.Contains(s.Problem.Error, f.path) || f.now().Trace.Slow != config.Duration(time.Second) {
		t.Errorf("gone: %+v", s)
	}
	if s := said(); s.Unseen == "" {
		t.Error("without a guard it is not said that changes are not seen")
	}
	f.write("[trace]\nslow = '2s'\n")
	f.watched("") // a guard has come, and may have missed something
	f.reread(<-f.news)
	if s := said(); s.Unseen != "" || s.Problem != nil || f.now().Trace.Slow != config.Duration(2*time.Second) {
		t.Errorf("with a guard: %+v", s)
	}
	f.changed()
	f.changed()
	f.watched("")
	if told := <-f.news; !told || len(f.news) != 0 {
		t.Error("that a file has changed is forgotten")
	}
}

// TestFollowMode: a sandbox whose mode changes has windows from then on; the trace of its
// start is whole.
func TestFollowMode(t *testing.T) {
	f := newFollowed(t, "")
	c := f.dial()
	call := func(id string) {
		if err := pause(c, id); err != nil {
			t.Error(err)
		}
	}
	may := func(do string, want error) {
		t.Helper()
		if err := f.sandbox.switcher.refuses(do); err != want {
			t.Errorf("%s: %v, want %v", do, err, want)
		}
	}
	f.edit("trace.mode = 'dynamic'")
	call("starting")
	may(control.DoOff, errStatic)
	f.start(c)
	call("dynamic")
	may(control.DoOn, nil)
	if st, err := state.Read(f.paths.State); err != nil || !st.Dynamic || st.Window == nil || st.Window.Ended.IsZero() {
		t.Errorf("state %+v, %v", st, err)
	}
	if _, err := f.sandbox.switcher.on(alice, time.Hour); err != nil {
		t.Fatal(err)
	}
	call("on")
	f.edit("trace.mode = 'static'")
	call("still on")
	if w := f.sandbox.window(); !w.Until.IsZero() {
		t.Errorf("it ends at %v", w.Until)
	}
	may(control.DoOff, errStatic)
	f.edit("trace.mode = 'off'")
	call("off")
	may(control.DoOn, errOff)
	f.edit("trace.mode = 'static'")
	call("static again")
	f.edit("trace.mode = 'dynamic'")
	call("dynamic again")
	if a := f.answer(); a.On || a.Configuration.Mode != "dynamic" {
		t.Errorf("the answer is %+v", a)
	}
	f.end()
	pauses, others := f.recorded()
	if want := []string{"starting", "on", "still on", "static again"}; !slices.Equal(pauses, want) {
		t.Errorf("recorded are %q, want %q", pauses, want)
	}
	slices.Sort(others)
	if want := []string{names.SandboxStart, names.SwitchedOff, names.SwitchedOff, names.SwitchedOff, names.SwitchedOn, names.SwitchedOn}; !slices.Equal(others, want) {
		t.Errorf("spans %q, want %q", others, want)
	}
}

// TestFollowUnderLoad: no call fails, and none lacks its span, while the configuration changes
// in what does not say whether calls are recorded.
func TestFollowUnderLoad(t *testing.T) {
	f := newFollowed(t, "")
	const clients, edits = 4, 40
	stop := make(chan struct{})
	var calling sync.WaitGroup
	var mu sync.Mutex
	var called []string
	for i := range clients {
		c := f.dial()
		calling.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(i, "-", n)
				if err := pause(c, id); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				called = append(called, id)
				mu.Unlock()
			}
		})
	}
	for i := range edits {
		f.edit([]string{
			"trace = { quiet = ['State'], slow = '1s', propagators = ['b3'] }",
			"trace = { join = 'sandbox', propagators = ['tracecontext', 'jaeger'], sampler = 'always_on' }",
			"trace = { sampler = 'traceidratio', sampler_arg = 1 }\nlog.level = 'error'",
			"trace = { sampler = ",
			"",
		}[i%5])
	}
	close(stop)
	calling.Wait()
	f.end()
	pauses, _ := f.recorded()
	slices.Sort(pauses)
	slices.Sort(called)
	if len(called) == 0 || !slices.Equal(pauses, called) {
		t.Errorf("%d calls, %d are recorded", len(called), len(pauses))
	}
}

// TestGoOnWithSettings: a process that goes on for another one keeps what that went by, if the
// files cannot be taken, and takes them if they can.
func TestGoOnWithSettings(t *testing.T) {
	cfg := config.Default()
	cfg.Trace.Sampler, cfg.Jaeger.Quiet = "always_off", []string{"x"}
	was := saved{Settings: effectiveOf(cfg).settings("dynamic")}
	text, err := json.Marshal(saved{Version: savedVersion, Settings: was.Settings, Sandbox: savedSandbox{State: state.State{Trace: state.NewTraceContext(export.NewRoot(t.Context(), config.Default().Trace))}}})
	if err != nil {
		t.Fatal(err)
	}
	var read saved
	if err := read.read(text); err != nil || !reflect.DeepEqual(read.Settings, was.Settings) {
		t.Errorf("%+v became %+v, %v", was.Settings, read.Settings, err)
	}
	for text, want := range map[string][2]string{
		"trace.mode = 'dinamic'":         {"always_off", "static"},
		"trace.sampler = 'always_on'":    {"always_on", "static"},
		"trace = { sampler = 'always' }": {"always_off", "static"},
	} {
		f := newFollowed(t, text)
		f.goOnWith(was)
		if now := f.now(); now.Trace.Sampler != want[0] || now.Trace.Mode != want[1] || was.mode(f.state) != "dynamic" {
			t.Errorf("%s: it goes by %+v", text, now.Trace)
		}
	}
	f := newFollowed(t, "trace.mode = 'dinamic'")
	old := saved{}
	old.Sandbox.State.Dynamic = true
	if f.goOnWith(old); f.now().Trace.Mode != "dynamic" {
		t.Error("what an older relay left is not as it was")
	}
}
