package vmshim_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// TestInjectedOnDemand: of a pod whose tracing is switched on for an exec, that is
// recorded, into the VM, and what was asked of the agent before and after is not.
func TestInjectedOnDemand(t *testing.T) {
	in, runtime := wrapped(t, "inject = 'on'\n[trace]\nmode = 'dynamic'\n")
	p, err := in.Rig.RunPod(rig.Pod{Name: "p", Runtime: runtime.Name})
	check(t, err)
	app, err := p.Run(rig.Container{Name: "app"})
	check(t, err)
	check(t, in.Rig.Crictl("exec", "-s", app, "true").Check())
	operate(t, in, "on", p.ID)
	check(t, in.Rig.Crictl("exec", "-s", app, "true").Check())
	operate(t, in, "off", p.ID)
	check(t, in.Rig.Crictl("exec", "-s", app, "true").Check())
	check(t, p.Remove())

	spans := waitSpans(t, in, p.ID, "tracing switched off", "exec_process", "root-span")
	byID, traces := map[string]otlprecv.Span{}, map[string]bool{}
	for _, s := range spans {
		byID[s.ID], traces[s.TraceID] = s, true
		if s.ParentID == "" && s.Name != "tracing switched on" {
			t.Errorf("%s is a root", s.Name)
		}
	}
	for _, s := range orphans(spans) {
		t.Fatalf("%s is an orphan", s.Name)
	}
	if len(traces) != 1 {
		t.Errorf("%d traces, want 1", len(traces))
	}
	for _, s := range requests(spans) {
		if s.Name != agentService+"ExecProcess" && s.Name != agentService+"SignalProcess" {
			t.Errorf("%s is of no exec", s.Name)
		}
	}
	asked := otlprecv.Named(spans, agentService+"ExecProcess")
	if len(asked) != 1 {
		t.Fatalf("%d requests to exec, want 1", len(asked))
	}
	if call := byID[asked[0].ParentID].Name; !strings.HasSuffix(call, "/Start") {
		t.Errorf("the request is under %s", call)
	}
	for _, s := range otlprecv.Named(spans, "exec_process") {
		if s.ParentID != asked[0].ID {
			t.Errorf("exec_process is under %s", byID[s.ParentID].Name)
		}
	}
}

// operate runs the operator's tool where the relays are.
func operate(t *testing.T, in *traced.Install, args ...string) {
	t.Helper()
	cmd := in.Rig.Command(t.Context(), filepath.Join(in.Bin, "shimtrace"), args...)
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+in.Config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("shimtrace %v: %v\n%s", args, err, out)
	}
}
