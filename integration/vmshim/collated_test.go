package vmshim_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
	"github.com/shimtrace/shimtrace/integration/vm"
)

// wrapped is a rig whose runtime vmrunc-traced is the VM-shaped shim in shimtrace.
func wrapped(t *testing.T, config string, env ...string) (*traced.Install, rig.Runtime) {
	t.Helper()
	return wrappedIn(t, rig.Options{}, config, env...)
}

// wrappedIn is wrapped in a rig of that kind.
func wrappedIn(t *testing.T, o rig.Options, config string, env ...string) (*traced.Install, rig.Runtime) {
	t.Helper()
	product, err := traced.Bin()
	check(t, err)
	link := filepath.Join(t.TempDir(), "containerd-shim-vmrunc-traced-v2")
	check(t, os.Symlink(filepath.Join(product, "containerd-shim-traced-v2"), link))
	runtime := rig.Runtime{Name: "vmrunc-traced", Type: rig.Runc.Type, Path: link}
	// nerdctl finds a shim by its runtime's type, on containerd's PATH.
	o.Path = []string{bin, filepath.Dir(link)}
	o.Env = append([]string{"VMSHIM_AGENT=" + agent.Program(t), "VMSHIM_AGENT_FLAGS=--flush-ms 200"}, env...)
	o.Runtimes = []rig.Runtime{runtime}
	in := traced.Start(t, traced.Options{Options: o, Config: "[agent]\nreceive = 'on'\n" + config})
	return in, runtime
}

// TestCollated is one trace from the shim's calls into the VM, in both of the
// agent's encodings, for what ctr, nerdctl and CRI run.
func TestCollated(t *testing.T) {
	for _, encoding := range []string{"json", "bincode"} {
		t.Run(encoding, func(t *testing.T) {
			in, runtime := wrapped(t, "", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --encoding "+encoding)
			pod := podLife(t, in.Rig, runtime)
			res := in.Rig.Nerdctl("run", "--rm", "--name", "box", "--net", "none", "--runtime", "io.containerd.vmrunc-traced.v2", image.Busybox, "echo", "hi")
			check(t, res.Check())
			spans := complete(t, in, pod.sandbox)
			checkTrace(t, spans, podAgents)
			for _, s := range spans {
				if s.Service() == "kata-agent" && (s.Resource["k8s.pod.name"] != "p" || s.Resource["shimtrace.sandbox.id"] != pod.sandbox) {
					t.Fatalf("%s is of %v", s.Name, s.Resource)
				}
			}
			checkTrace(t, complete(t, in, sandboxOf(t, in, "box")), map[string]int{
				"create_sandbox": 1, "create_container": 1, "start_container": 1, "remove_container": 1, "destroy_sandbox": 1, "root-span": 1,
			})
			checkSecrets(t, in)
		})
	}
}

// sandboxOf returns the sandbox of the container of that name.
func sandboxOf(t *testing.T, in *traced.Install, name string) string {
	t.Helper()
	all, err := in.Spans()
	check(t, err)
	for _, s := range all {
		if s.Attrs["container.name"] == name {
			return s.Resource["shimtrace.sandbox.id"].(string)
		}
	}
	t.Fatalf("no span is of container %s", name)
	return ""
}

// podAgents are the agent's spans of a podLife that tell whether all of it is there.
var podAgents = map[string]int{
	"create_sandbox": 1, "create_container": 3, "start_container": 3, "exec_process": 1,
	"remove_container": 3, "destroy_sandbox": 1, "root-span": 1,
}

// pod is what was run in one.
type pod struct{ sandbox, app string }

// podLife runs a pod with two containers, an exec in one, then what it is given, and
// removes it.
func podLife(t *testing.T, r *rig.Rig, runtime rig.Runtime, then ...func(pod)) pod {
	t.Helper()
	p, err := r.RunPod(rig.Pod{Name: "p", Runtime: runtime.Name})
	check(t, err)
	app, err := p.Run(rig.Container{Name: "app", Env: map[string]string{"PASSWORD": "hunter2"}})
	check(t, err)
	_, err = p.Run(rig.Container{Name: "job", Command: []string{"sh", "-c", "exit 7"}})
	check(t, err)
	check(t, r.Crictl("exec", "-s", app, "true").Check())
	made := pod{sandbox: p.ID, app: app}
	for _, f := range then {
		f(made)
	}
	check(t, p.Remove())
	return made
}

// complete waits until the sandbox's trace is in the journal: its life-long agent
// span is the last but for deletes.
func complete(t *testing.T, in *traced.Install, sandbox string) []otlprecv.Span {
	t.Helper()
	return waitSpans(t, in, sandbox, "root-span", "shim delete")
}

// waitSpans waits until the journal has spans of these names of the sandbox, with all
// that they are under, and returns all of that.
func waitSpans(t *testing.T, in *traced.Install, sandbox string, names ...string) []otlprecv.Span {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		all, err := in.Spans()
		check(t, err)
		ours := slices.DeleteFunc(all, func(s otlprecv.Span) bool { return s.Resource["shimtrace.sandbox.id"] != sandbox })
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return len(otlprecv.Named(ours, name)) > 0 })
		late := time.Now().After(deadline)
		switch {
		case !late && slices.Contains(names, "shim delete") && relayed(in, sandbox): // and has more to write
		case len(missing) == 0 && (late || len(orphans(ours)) == 0):
			return ours
		case late:
			t.Fatalf("the trace of %s is not complete: %d spans, but no %v", sandbox, len(ours), missing)
		}
	}
}

// relayed reports whether a sandbox has a relay.
func relayed(in *traced.Install, sandbox string) bool {
	return slices.ContainsFunc(traced.Find(in.Rig, traced.Relay), func(p rig.Process) bool { return slices.Contains(p.Args, sandbox) })
}

// orphans are the spans whose parents are missing.
func orphans(spans []otlprecv.Span) []otlprecv.Span {
	known := map[string]bool{"": true}
	for _, s := range spans {
		known[s.ID] = true
	}
	return slices.DeleteFunc(slices.Clone(spans), func(s otlprecv.Span) bool { return known[s.ParentID] })
}

// cause is the shim's call that an agent RPC is to be found under, by the table of
// what Kata's runtime asks for in which call.
var cause = map[string]string{
	"create_sandbox": "Create", "create_container": "Create", "update_interface": "Create",
	"update_routes": "Create", "get_guest_details": "Create",
	"start_container": "Start", "exec_process": "Start", "signal_process": "Kill",
	"remove_container": "Delete", "destroy_sandbox": "Delete Shutdown",
}

// checkTree holds a sandbox's spans to being one trace, whole, with one root, and
// returns them by id.
func checkTree(t *testing.T, spans []otlprecv.Span) map[string]otlprecv.Span {
	t.Helper()
	byID := map[string]otlprecv.Span{}
	traces, roots := map[string]bool{}, 0
	for _, s := range spans {
		if _, twice := byID[s.ID]; twice {
			t.Errorf("%s came twice", s.Name)
		}
		byID[s.ID] = s
		traces[s.TraceID] = true
	}
	for _, s := range spans {
		if s.ParentID == "" {
			roots++
			if s.Name != "sandbox start" {
				t.Errorf("%s is a root", s.Name)
			}
		}
	}
	for _, s := range orphans(spans) {
		t.Errorf("%s is an orphan", s.Name)
	}
	if len(traces) != 1 || roots != 1 {
		t.Errorf("%d traces, %d roots, want 1", len(traces), roots)
	}
	if t.Failed() {
		t.FailNow() // there is no saying what is under what
	}
	return byID
}

// checkTrace holds a sandbox's spans to being one trace and each of the agent's in the
// place that was inferred for it, with so many of some.
func checkTrace(t *testing.T, spans []otlprecv.Span, want map[string]int) {
	t.Helper()
	byID := checkTree(t, spans)
	agents := map[string]int{}
	for _, s := range spans {
		parent := byID[s.ParentID]
		if s.Service() != "kata-agent" || parent.Span == nil {
			continue
		}
		agents[s.Name]++
		method := parent.Name[strings.LastIndexByte(parent.Name, '/')+1:]
		if calls, is := cause[s.Name]; is && !slices.Contains(strings.Fields(calls), method) {
			t.Errorf("%s is under %s, want %s", s.Name, parent.Name, calls)
		}
		if id := s.Attrs["container.id"]; id != nil && parent.Service() != "kata-agent" && parent.Attrs["container.id"] != nil && parent.Attrs["container.id"] != id {
			t.Errorf("%s of %v is under %s of %v", s.Name, id, parent.Name, parent.Attrs["container.id"])
		}
		if s.Name == "exec_process" && parent.Attrs["shimtrace.exec.id"] == nil {
			t.Errorf("exec_process is under %s, which is of no exec", parent.Name)
		}
		// containerd polls: such a call is there only when it failed.
		if s.Name == "stats_container" && (method != "Stats" || parent.Attrs["rpc.response.status_code"] == "OK") {
			t.Errorf("stats_container under %s, %v, is not quiet", parent.Name, parent.Attrs["rpc.response.status_code"])
		}
	}
	for name, n := range want {
		if agents[name] != n {
			t.Errorf("%d spans %s, want %d", agents[name], name, n)
		}
	}
	if n := len(requests(spans)); n > 0 {
		t.Errorf("%d requests to the agent have spans, which was not asked for", n)
	}
}

// checkSecrets looks for a container's environment in all that was kept.
func checkSecrets(t *testing.T, in *traced.Install) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(in.Journal, "*.seg"))
	check(t, err)
	if len(segments) == 0 {
		t.Fatal("the journal is empty")
	}
	for _, name := range segments {
		text, err := os.ReadFile(name)
		check(t, err)
		if bytes.Contains(text, []byte("hunter2")) {
			t.Errorf("a secret got into %s", name)
		}
	}
}

// TestCollatedWithCaller is the whole way: containerd's own span, the shim's call
// under it, the agent's RPC under that.
func TestCollatedWithCaller(t *testing.T) {
	for _, encoding := range []string{"json", "bincode"} {
		t.Run(encoding, func(t *testing.T) { collatedWithCaller(t, encoding) })
	}
}

func collatedWithCaller(t *testing.T, encoding string) {
	in, runtime, recv := collecting(t, "", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --encoding "+encoding)
	p := podLife(t, in.Rig, runtime)
	spans, err := recv.Wait(time.Minute, func(spans []otlprecv.Span) bool {
		return len(otlprecv.Named(spans, "root-span")) == 1 && len(otlprecv.Named(spans, "create_container")) == 3 && callers(spans, "create_container", 1) == 3
	})
	if err != nil {
		t.Fatalf("%d create_container, %d with their caller: %v", len(otlprecv.Named(spans, "create_container")), callers(spans, "create_container", 1), err)
	}
	for _, s := range otlprecv.Named(spans, "create_container") {
		if s.Resource["shimtrace.sandbox.id"] != p.sandbox {
			t.Errorf("create_container is of sandbox %v", s.Resource["shimtrace.sandbox.id"])
		}
	}
}

// collecting is wrapped with a collector, to which containerd sends its spans as well.
func collecting(t *testing.T, config string, env ...string) (*traced.Install, rig.Runtime, *otlprecv.Receiver) {
	t.Helper()
	const endpoint = "127.0.0.1:4318"
	shipper, err := traced.ImpatientShipper(t.TempDir())
	check(t, err)
	in, runtime := wrapped(t, config+fmt.Sprintf("[export]\nshipper = %q\n", shipper),
		append([]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + endpoint, "OTEL_BSP_SCHEDULE_DELAY=100"}, env...)...)
	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: in.Rig.NetNS(), HTTPAddr: endpoint})
	check(t, err)
	t.Cleanup(func() {
		// A shipper that misses an answer would wait for the collector to come back.
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && slices.ContainsFunc(in.Rig.Processes(), isShipper); {
			time.Sleep(50 * time.Millisecond)
		}
		recv.Close()
	})
	return in, runtime, recv
}

func isShipper(p rig.Process) bool { return filepath.Base(p.Args[0]) == "shimtrace" }

// callers counts the agent's spans of that name which are so many spans of the shim's
// below one of containerd's, in its trace.
func callers(spans []otlprecv.Span, name string, shims int) (n int) {
	byID := map[string]otlprecv.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	for _, s := range otlprecv.Named(spans, name) {
		above, below := byID[s.ParentID], 0
		for strings.HasPrefix(above.Service(), "containerd-shim-") {
			above, below = byID[above.ParentID], below+1
		}
		if below == shims && above.Service() == "containerd" && above.TraceID == s.TraceID {
			n++
		}
	}
	return n
}

// TestCollatedGuest is the same with the agent in a real VM, behind its VSOCK: the
// relay listens where the VMM connects to.
func TestCollatedGuest(t *testing.T) {
	dir := t.TempDir()
	pattern := filepath.Join(dir, "{sandbox}", "vm.sock")
	in, runtime := wrapped(t, fmt.Sprintf("[agent.sockets]\ntest = %q\n", pattern), "VMSHIM_MODE=external", "VMSHIM_SOCKET="+pattern)
	const id = "c1"
	check(t, os.Mkdir(filepath.Join(dir, id), 0o700))
	vm.StartHybrid(t, vm.HybridOptions{
		Socket:   filepath.Join(dir, id, "vm.sock"),
		Files:    map[string]string{"bin/agent": agent.Program(t)},
		Services: []string{"agent --listen vsock://:1024 --export vsock://2:10240 --flush-ms 20"},
	})
	check(t, in.Rig.Ctr("run", "-d", "--runtime", runtime.Shim(), image.Busybox, id, "sleep", "1000").Check())
	if conn, err := net.Dial("unix", filepath.Join(dir, id, "vm.sock_10240")); err != nil {
		t.Errorf("nobody listens for the guest: %v", err)
	} else {
		conn.Close()
	}
	check(t, in.Rig.Ctr("tasks", "exec", "--exec-id", "e1", id, "true").Check())
	check(t, in.Rig.Ctr("tasks", "kill", "--signal", "SIGKILL", id).Check())
	waitStopped(t, in.Rig)
	check(t, in.Rig.Ctr("tasks", "delete", id).Check())
	spans := complete(t, in, id)
	byID := map[string]otlprecv.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	for name, call := range cause {
		for _, s := range otlprecv.Named(spans, name) {
			parent := byID[s.ParentID].Name
			if !slices.Contains(strings.Fields(call), parent[strings.LastIndexByte(parent, '/')+1:]) {
				t.Errorf("%s is under %q, want %s", name, parent, call)
			}
		}
	}
	for _, name := range []string{"create_sandbox", "create_container", "start_container", "exec_process", "signal_process", "remove_container", "destroy_sandbox"} {
		if len(otlprecv.Named(spans, name)) == 0 {
			t.Errorf("no %s came out of the VM", name)
		}
	}
	checkSecrets(t, in)
}
