package vmshim_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/rust/agent"
	"github.com/shimtrace/shimtrace/integration/traced"
	wire "github.com/shimtrace/shimtrace/internal/forwarder/agent"
	"github.com/shimtrace/shimtrace/internal/testkit"
	"github.com/shimtrace/shimtrace/internal/testkit/tempdir"
)

var bin string // where the shim is

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := tempdir.Make()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		defer traced.Clean()
		bin = dir
		build := exec.Command("go", "build", "-o", dir+"/", "./cmd/...")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the shim: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// start starts a rig whose runtime vmrunc is the shim, with spans sent often, and
// a host that receives them.
func start(t *testing.T, env ...string) (*rig.Rig, rig.Runtime, *host) {
	t.Helper()
	program := agent.Program(t)
	runtime := rig.Runtime{Name: "vmrunc", Type: rig.Runc.Type, Path: filepath.Join(bin, "containerd-shim-vmrunc-v2")}
	r := rig.Start(t, rig.Options{
		Path:     []string{bin},
		Env:      append([]string{"VMSHIM_AGENT=" + program, "VMSHIM_AGENT_FLAGS=--flush-ms 200"}, env...),
		Runtimes: []rig.Runtime{runtime},
	})
	return r, runtime, receive(t, r)
}

var check = testkit.Check

// A container's life is the agent's: each call of containerd's brings the RPCs
// that Kata's Go runtime sends for it, in both of the wire's encodings.
func TestContainer(t *testing.T) {
	for _, encoding := range []wire.Encoding{wire.Bincode, wire.JSON} {
		t.Run(encoding.String(), func(t *testing.T) {
			r, runtime, host := start(t, "VMSHIM_AGENT_FLAGS=--flush-ms 200 --encoding "+encoding.String())
			check(t, r.Ctr("run", "--detach", "--runtime", runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
			res := r.CtrHearing([]string{"hi"}, "tasks", "exec", "--exec-id", "e1", "c1", "sh", "-c", "echo hi"+rig.Hear+"; exit 3")
			if res.Out() != "hi" || res.Code != 3 {
				t.Errorf("exec printed %q and exited with %d, want hi and 3", res.Out(), res.Code)
			}
			check(t, r.Ctr("tasks", "pause", "c1").Check())
			check(t, r.Ctr("tasks", "resume", "c1").Check())
			check(t, r.Ctr("tasks", "metrics", "c1").Check())
			check(t, r.Ctr("tasks", "kill", "--signal", "SIGKILL", "c1").Check())
			waitStopped(t, r)
			check(t, r.Ctr("tasks", "delete", "c1").Check())
			got := host.wait("c1")

			want := []string{
				"create_sandbox", "get_guest_details", "create_container c1", "start_container c1",
				"exec_process c1 e1", "wait_process c1 e1", "pause_container c1", "resume_container c1",
				"signal_process c1", "wait_process c1", "remove_container c1",
				"remove_stale_virtiofs_share_mounts", "destroy_sandbox",
			}
			// ctr closes the standard input of what it does not read from.
			calls := slices.DeleteFunc(got.calls(), func(c string) bool { return strings.HasPrefix(c, "close_stdin") })
			if !slices.Equal(calls, want) {
				t.Errorf("the agent was asked\n\t%s\nwant\n\t%s", strings.Join(calls, "\n\t"), strings.Join(want, "\n\t"))
			}
			if got.named("stats_container") == nil {
				t.Error("no stats_container")
			}
			for i, e := range got.encodings {
				if e != encoding {
					t.Fatalf("span %s came as %s", got.spans[i].Name, e)
				}
			}
			checkShape(t, got)
		})
	}
}

// waitStopped waits for the end of the one task in a rig.
func waitStopped(t *testing.T, r *rig.Rig) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		tasks := r.Ctr("tasks", "list")
		check(t, tasks.Check())
		if strings.Contains(tasks.Stdout, "STOPPED") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the task has not stopped:\n%s", tasks.Stdout)
		}
	}
}

// checkShape holds spans to what is peculiar of an agent's.
func checkShape(t *testing.T, got *received) {
	t.Helper()
	position := map[[8]byte]int{}
	roots := map[string]int{}
	for i, s := range got.spans {
		position[s.SpanID] = i
		if s.ParentID == ([8]byte{}) {
			roots[s.Name]++
		}
	}
	for i, s := range got.spans {
		if p, arrived := position[s.ParentID]; arrived && p < i {
			t.Errorf("%s arrived after its parent %s", s.Name, got.spans[p].Name)
		} else if !arrived && s.ParentID != ([8]byte{}) {
			t.Errorf("%s has a parent that never arrived", s.Name)
		}
	}
	// Each namespace of the sandbox is mounted by a thread of its own.
	for name, want := range map[string]int{"root-span": 1, "watch_uevents": 1, "create_sandbox": 1, "get_current_thread_ns_path": 2, "baremount": 2} {
		if roots[name] != want {
			t.Errorf("%d spans %s that are roots, want %d", roots[name], name, want)
		}
	}
	if last := got.spans[len(got.spans)-1].Name; last != "root-span" {
		t.Errorf("the last span is %s, want root-span", last)
	}
	if !got.leaks {
		t.Error("no secret was among what the agent sent")
	}
}

// A pod is one VM: the containers of CRI come to the shim of its sandbox.
func TestPod(t *testing.T) {
	r, runtime, host := start(t)
	pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: runtime.Name})
	check(t, err)
	a, err := pod.Run(rig.Container{Name: "a"})
	check(t, err)
	b, err := pod.Run(rig.Container{Name: "b", Command: []string{"sh", "-c", "exit 7"}})
	check(t, err)
	for _, args := range [][]string{{"exec", a}, {"exec", "-s", a}} {
		res := r.Crictl(append(args, "echo", "hi")...)
		check(t, res.Check())
		if res.Out() != "hi" {
			t.Errorf("%v printed %q, want hi", args, res.Out())
		}
	}
	check(t, pod.Remove())
	got := host.wait(pod.ID)

	calls := got.calls()
	count := func(call string) (n int) {
		for _, c := range calls {
			if c == call || strings.HasPrefix(c, call+" ") {
				n++
			}
		}
		return n
	}
	for call, want := range map[string]int{
		"create_sandbox": 1, "update_interface": 1, "update_routes": 1, "destroy_sandbox": 1,
		"create_container " + pod.ID: 1, "create_container " + a: 1, "create_container " + b: 1,
		"start_container": 3, "remove_container": 3,
		"exec_process " + a: 2, "wait_process " + a: 3, "wait_process " + b: 1, "wait_process " + pod.ID: 1,
	} {
		if n := count(call); n != want {
			t.Errorf("%d times %s, want %d", n, call, want)
		}
	}
	if t.Failed() {
		t.Logf("the agent was asked\n\t%s", strings.Join(calls, "\n\t"))
	}
	checkShape(t, got)
}

// With the runtime's tracing on, its context goes along and every RPC is in its
// one trace; without, each is the root of its own.
func TestRuntimeContext(t *testing.T) {
	for _, tracing := range []string{"on", "off"} {
		t.Run(tracing, func(t *testing.T) {
			r, runtime, host := start(t, "VMSHIM_TRACING="+tracing)
			check(t, r.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "true").Check())
			traces := map[[16]byte]bool{}
			rpcs := 0
			for _, s := range host.wait("c1").spans {
				if !isRPC(s.Name) {
					continue
				}
				rpcs++
				traces[s.TraceID] = true
				if hasParent := s.ParentID != ([8]byte{}); hasParent != (tracing == "on") {
					t.Errorf("%s has a parent: %t", s.Name, hasParent)
				}
			}
			want := map[string]int{"on": 1, "off": rpcs}[tracing]
			if rpcs == 0 || len(traces) != want {
				t.Errorf("%d RPCs in %d traces, want %d", rpcs, len(traces), want)
			}
		})
	}
}

// A VM that is killed takes its life-long spans with it, as runtime-rs's does.
func TestKilledVM(t *testing.T) {
	r, runtime, host := start(t, "VMSHIM_END=kill")
	check(t, r.Ctr("run", "--detach", "--runtime", runtime.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
	eventually(t, "create_container, which is over long before the end, to arrive", func() bool { return host.has("c1", "create_container") })
	if res := r.Ctr("tasks", "delete", "--force", "c1"); res.Err != nil {
		t.Fatal(res.Err)
	}
	got := host.wait("c1")
	for _, name := range []string{"root-span", "start_sandbox", "watch_uevents", "destroy_sandbox"} {
		if got.named(name) != nil {
			t.Errorf("%s arrived", name)
		}
	}
}

// The agent can be told to lose a parent whose children arrive.
func TestLostSpan(t *testing.T) {
	r, runtime, host := start(t, "VMSHIM_AGENT_FLAGS=--flush-ms 200 --lose create_container")
	check(t, r.Ctr("run", "--rm", "--runtime", runtime.Shim(), image.Busybox, "c1", "true").Check())
	got := host.wait("c1")
	if got.named("create_container") != nil || got.named("do_create_container") == nil {
		t.Errorf("create_container arrived: %t; its child arrived: %t", got.named("create_container") != nil, got.named("do_create_container") != nil)
	}
}
