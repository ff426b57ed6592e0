package traced_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/internal/guard"
	"github.com/shimtrace/shimtrace/internal/names"
)

// TestHelpers: what runc's shim executes is below the call that caused it, by CRI and by
// nerdctl; a container's own program is an event of its start; nothing that runs in a
// container is named, and no argument.
func TestHelpers(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: withHelpers})
	r := in.Rig
	const secret = "SECRET-of-the-container"
	check(t, r.Nerdctl("run", "--net", "none", "--name", "box", "--detach", "--runtime", traced.NerdctlRuntime, image.Busybox, "sh", "-c", "while :; do busybox sleep 0.01; done # "+secret).Check())
	if self, _, err := guard.Ask(t.Context(), stateDir(r)); err != nil || self.Unrecorded != "" {
		t.Skip("this host has no process events: ", self.Unrecorded, err)
	}
	check(t, r.Nerdctl("exec", "box", "sh", "-c", "true "+secret).Check())
	check(t, r.Nerdctl("rm", "--force", "box").Check())
	pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: in.Runtime.Name, HostNetwork: true})
	check(t, err)
	a, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	check(t, r.Crictl("exec", "--sync", a, "true").Check())
	var execs sync.WaitGroup
	for range 5 {
		execs.Go(func() { r.Crictl("exec", "--sync", a, "sleep", "0.1") })
	}
	execs.Wait()
	check(t, pod.Remove())
	settle(t, in)
	spans := settled(t, in)
	for _, s := range spans {
		if text := fmt.Sprint(s.Name, s.Attrs, s.Status, s.Events); strings.Contains(text, secret) || strings.Contains(text, "sleep") {
			t.Errorf("it says what runs in a container: %s", text)
		}
	}
	helpers := helpersOf(t, spans, "box")
	for name, parent := range map[string]string{"runc start": "Task/Start", "runc exec": "Task/Start", "runc delete": "Task/Delete", "runc kill": "Task/Kill"} {
		for _, s := range wantHelper(t, helpers, name) {
			wantBelow(t, spans, s, parent)
		}
	}
	helpers = helpersOf(t, spans, pod.ID)
	for name, parent := range map[string]string{"runc create": "Task/Create", "runc start": "Task/Start", "runc exec": "Task/Start", "runc kill": "Task/Kill"} {
		all := wantHelper(t, helpers, name)
		// A container in its pod's PID namespace is killed once more when its first process
		// has exited, which no call asks for (containerd, ShouldKillAllOnExit).
		asked := slices.DeleteFunc(slices.Clone(all), func(s otlprecv.Span) bool {
			return name == "runc kill" && isBelow(spans, s, "sandbox start")
		})
		t.Logf("%d of %d %s", len(asked), len(all), name)
		if len(all) > 0 && len(asked) == 0 {
			t.Errorf("no %s is below a call", name)
		}
		for _, s := range asked {
			wantBelow(t, spans, s, parent)
		}
		// What ends before it can be looked at has no name.
		if n := len(all) + len(otlprecv.Named(helpers, names.UnknownProgram)); name == "runc exec" && (len(all) > 6 || n < 6) {
			t.Errorf("%d execs and %d programs without a name, want 6", len(all), n-len(all))
		}
	}
	wantProgramsExecuted(t, spans)
	for _, root := range otlprecv.Named(spans, "sandbox start") {
		first, ok := root.Attrs["shimtrace.time_to_first_instruction_ns"].(int64)
		// runc says that it has started the program when it is about to be executed.
		if took := root.End().Sub(root.Start()); !ok || first <= 0 || time.Duration(first) > took+5*time.Second {
			t.Errorf("the first instruction of %v came after %v of %v", root.Resource["shimtrace.sandbox.id"], time.Duration(first), took)
		}
	}
	for id, n := range listErrors(t, in) {
		if n != 0 {
			t.Errorf("list has %d errors of %s", n, id)
		}
	}
}

// helpersOf returns the helpers of a sandbox, by its id or the name of its container.
func helpersOf(t *testing.T, spans []otlprecv.Span, sandbox string) (all []otlprecv.Span) {
	t.Helper()
	run := ""
	for _, s := range spans {
		if s.Resource["shimtrace.sandbox.id"] == sandbox || s.Attrs["container.name"] == sandbox {
			run, _ = s.Resource["service.instance.id"].(string)
		}
	}
	for _, s := range spans {
		if s.Attrs["process.executable.name"] != nil && s.Resource["service.instance.id"] == run {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		t.Fatalf("sandbox %s has no helpers", sandbox)
	}
	return all
}

// wantHelper returns the helpers of a name. There must be one, unless a busy machine left
// some of the sandbox's without a name.
func wantHelper(t *testing.T, helpers []otlprecv.Span, name string) []otlprecv.Span {
	t.Helper()
	all := otlprecv.Named(helpers, name)
	if len(all) == 0 && len(otlprecv.Named(helpers, names.UnknownProgram)) == 0 {
		var have []string
		for _, s := range helpers {
			have = append(have, s.Name)
		}
		t.Errorf("there is no %q among %q", name, have)
	}
	return all
}

// isBelow reports whether a span's parent has that name.
func isBelow(spans []otlprecv.Span, s otlprecv.Span, parent string) bool {
	return slices.ContainsFunc(spans, func(p otlprecv.Span) bool { return p.ID == s.ParentID && p.Name == parent })
}

// wantBelow checks that a span lies below a call of a method, and within it.
func wantBelow(t *testing.T, spans []otlprecv.Span, s otlprecv.Span, method string) {
	t.Helper()
	i := slices.IndexFunc(spans, func(p otlprecv.Span) bool { return p.ID == s.ParentID })
	if i < 0 {
		t.Errorf("%s has no parent", s.Name)
		return
	}
	p := spans[i]
	if !strings.HasSuffix(p.Name, method) || s.Attrs["container.id"] != nil && p.Attrs["container.id"] != s.Attrs["container.id"] {
		t.Errorf("%s %v is below %s %v, want %s", s.Name, s.Attrs, p.Name, p.Attrs, method)
	}
	if s.Start().Before(p.Start().Add(-time.Millisecond)) || s.End().After(p.End().Add(time.Second)) {
		t.Errorf("%s, %v to %v, is not within %s, %v to %v", s.Name, s.Start(), s.End(), p.Name, p.Start(), p.End())
	}
}

// wantProgramsExecuted checks that each start that succeeded says when its program was
// executed.
func wantProgramsExecuted(t *testing.T, spans []otlprecv.Span) {
	t.Helper()
	const event = "program executed"
	starts := 0
	for _, s := range spans {
		if !strings.HasSuffix(s.Name, "Task/Start") || s.Attrs["rpc.response.status_code"] != "OK" {
			continue
		}
		starts++
		n := 0
		for _, e := range s.Events {
			if e.Name == event {
				n++
			}
		}
		for _, late := range otlprecv.Named(spans, event) {
			if late.ParentID == s.ID {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s %v: %d programs were executed, want 1", s.Name, s.Attrs, n)
		}
	}
	if starts == 0 {
		t.Error("nothing was started")
	}
}

// hooked returns a container's specification with hooks, each a script that exits with a
// code.
func hooked(t *testing.T, in *traced.Install, id string, codes map[string]int) (spec string) {
	t.Helper()
	dir := t.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	for _, name := range []string{"bin", "proc", "dev", "sys", "tmp"} {
		check(t, os.MkdirAll(filepath.Join(rootfs, name), 0o755))
	}
	busybox, err := os.ReadFile("/bin/busybox")
	check(t, err)
	check(t, os.WriteFile(filepath.Join(rootfs, "bin/sh"), busybox, 0o755))
	res := in.Rig.Ctr("oci", "spec")
	check(t, res.Check())
	var s map[string]any
	check(t, json.Unmarshal([]byte(res.Stdout), &s))
	s["root"] = map[string]any{"path": rootfs}
	process := s["process"].(map[string]any)
	process["args"], process["terminal"] = []string{"/bin/sh", "-c", "sleep 1000"}, false
	hooks := map[string]any{}
	for kind, code := range codes {
		path := filepath.Join(dir, kind+"-hook")
		if kind == "startContainer" { // its path is the container's
			path = filepath.Join(rootfs, "bin", kind+"-hook")
		}
		check(t, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\ni=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\nexit %d\n", code), 0o755))
		if kind == "startContainer" {
			path = "/bin/" + kind + "-hook"
		}
		hooks[kind] = []any{map[string]any{"path": path, "args": []string{kind + "-hook", "SECRET"}, "env": []string{"PATH=/bin:/usr/bin"}}}
	}
	s["hooks"] = hooks
	s["linux"].(map[string]any)["cgroupsPath"] = "/" + in.Rig.Name + "-" + id
	text, err := json.Marshal(s)
	check(t, err)
	spec = filepath.Join(dir, "spec.json")
	check(t, os.WriteFile(spec, text, 0o600))
	return spec
}

// TestHooks: hooks are below the runc that executes them, those in the container's
// namespaces too; one that fails is an error, as is the call that it makes fail.
func TestHooks(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: withHelpers})
	r := in.Rig
	healthy := map[string]int{"prestart": 0, "createRuntime": 0, "createContainer": 0, "startContainer": 0, "poststart": 0, "poststop": 0}
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), "--config", hooked(t, in, "hooked", healthy), "hooked").Check())
	if self, _, err := guard.Ask(t.Context(), stateDir(r)); err != nil || self.Unrecorded != "" {
		t.Skip("this host has no process events: ", self.Unrecorded, err)
	}
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), "--config", hooked(t, in, "again", healthy), "again").Check())
	for _, id := range []string{"hooked", "again"} {
		check(t, r.Ctr("tasks", "delete", "--force", id).Check())
		check(t, r.Ctr("containers", "delete", id).Check())
	}
	failing := hooked(t, in, "failing", map[string]int{"createRuntime": 7})
	if res := r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), "--config", failing, "failing"); res.Code == 0 {
		t.Error("a container runs whose hook fails")
	}
	_ = r.Ctr("containers", "delete", "failing")
	settle(t, in)
	spans := settled(t, in)
	helpers := helpersOf(t, spans, "again") // the guard was there from its beginning
	for hook, parent := range map[string]string{
		"prestart-hook": "runc create", "createRuntime-hook": "runc create", "createContainer-hook": "runc create", "poststart-hook": "runc create", "poststop-hook": "runc delete",
	} {
		for _, s := range wantHelper(t, helpers, hook) {
			wantBelow(t, spans, s, parent)
			if s.Attrs["shimtrace.process.role"] != "hook" || s.Attrs["process.exit.code"] != int64(0) {
				t.Errorf("%s: %v", hook, s.Attrs)
			}
		}
	}
	wantHelper(t, helpers, "startContainer-hook")
	wantProgramsExecuted(t, spans)
	failed := wantHelper(t, helpersOf(t, spans, "failing"), "createRuntime-hook")
	for _, s := range failed {
		if s.Attrs["process.exit.code"] != int64(7) || s.GetStatus().GetMessage() != "exit status 7" {
			t.Errorf("the hook that failed: %v, %v", s.Attrs, s.Status)
		}
		wantBelow(t, spans, s, "runc create")
	}
	for _, s := range spans {
		if text := fmt.Sprint(s.Name, s.Attrs, s.Events); strings.Contains(text, "SECRET") {
			t.Errorf("an argument is said: %s", text)
		}
	}
}

// TestHelpersOfMany: of many containers at once each has its own helpers.
func TestHelpersOfMany(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: withHelpers})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "first", "sleep", "1000").Check())
	if self, _, err := guard.Ask(t.Context(), stateDir(r)); err != nil || self.Unrecorded != "" {
		t.Skip("this host has no process events: ", self.Unrecorded, err)
	}
	const many, atOnce = 100, 5
	var all sync.WaitGroup
	slots := make(chan bool, atOnce)
	for i := range many {
		all.Go(func() {
			slots <- true
			defer func() { <-slots }()
			check(t, r.Ctr("run", "--rm", "--runtime", in.Runtime.Shim(), image.Busybox, fmt.Sprint("box", i), "true").Check())
		})
	}
	all.Wait()
	check(t, r.Ctr("tasks", "delete", "--force", "first").Check())
	check(t, r.Ctr("containers", "delete", "first").Check())
	settle(t, in)
	spans := settled(t, in)
	unknown := 0
	for i := range many {
		id := fmt.Sprint("box", i)
		helpers := helpersOf(t, spans, id)
		for _, name := range []string{"runc create", "runc start", "runc delete"} {
			all := otlprecv.Named(helpers, name)
			if len(all) == 0 {
				unknown++ // it has ended before anybody could look at it: the machine is busy
			}
			for _, s := range all {
				if got := s.Attrs["container.id"]; got != id {
					t.Errorf("%s of %s is of container %v", name, id, got)
				}
				wantBelow(t, spans, s, "Task/"+strings.ToUpper(name[5:6])+name[6:])
			}
		}
	}
	t.Logf("%d of %d helpers have no name", unknown, 3*many)
	if unknown > many {
		t.Errorf("%d of %d helpers have no name", unknown, 3*many)
	}
	wantProgramsExecuted(t, spans)
}

// TestHelpersResumed: the spans of helpers survive their relay and the guard.
func TestHelpersResumed(t *testing.T) {
	t.Parallel()
	in := traced.Start(t, traced.Options{Options: rig.Options{Version: rig.V24}, Config: withHelpers})
	r := in.Rig
	check(t, r.Ctr("run", "--detach", "--runtime", in.Runtime.Shim(), image.Busybox, "box", "sleep", "1000").Check())
	self, _, err := guard.Ask(t.Context(), stateDir(r))
	if err != nil || self.Unrecorded != "" {
		t.Skip("this host has no process events: ", self.Unrecorded, err)
	}
	until(t, "the start's span to be written: the relay's unwritten ones end with it", func() bool {
		return slices.ContainsFunc(spans(t, in), func(s otlprecv.Span) bool { return strings.HasSuffix(s.Name, "Task/Start") })
	})
	killRelay(t, r)
	check(t, r.Ctr("tasks", "exec", "--exec-id", "after-the-relay", "box", "true").Check())
	_, pid := guarded(t, r, func(guard.Status) bool { return true })
	process, err := os.FindProcess(pid)
	check(t, err)
	check(t, process.Kill())
	_, _ = guarded(t, r, func(guard.Status) bool {
		now, _, err := guard.Ask(t.Context(), stateDir(r))
		return err == nil && now.PID != pid
	})
	check(t, r.Ctr("tasks", "exec", "--exec-id", "after-the-guard", "box", "true").Check())
	check(t, r.Ctr("tasks", "delete", "--force", "box").Check())
	check(t, r.Ctr("containers", "delete", "box").Check())
	settle(t, in)
	all := spansOfKilled(t, in)
	helpers := helpersOf(t, all, "box")
	// What ends before it can be looked at has no name.
	named := len(wantHelper(t, helpers, "runc exec"))
	if n := named + len(otlprecv.Named(helpers, names.UnknownProgram)); named > 2 || n < 2 {
		t.Errorf("%d execs and %d programs without a name, want 2", named, n-named)
	}
	for _, s := range helpers {
		i := slices.IndexFunc(all, func(p otlprecv.Span) bool { return p.ID == s.ParentID })
		if i < 0 {
			t.Errorf("%s has no parent", s.Name)
		}
	}
}
