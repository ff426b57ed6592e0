package vmshim_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
)

// switched is what the operator's tool says of the one sandbox that runs.
type switched struct {
	On         bool
	TraceID    string `json:"trace_id"`
	Unrecorded int    `json:"unrecorded_spans"`
}

func turn(t *testing.T, in *traced.Install, do string, names ...string) (s switched) {
	t.Helper()
	args := append([]string{do, "--json"}, names...)
	if do == "status" {
		args = append(args, "--wait", "30s")
	}
	cmd := in.Rig.Command(t.Context(), filepath.Join(in.Bin, "shimtrace"), args...)
	cmd.Env = append(cmd.Env, "SHIMTRACE_CONFIG="+in.Config)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("shimtrace %s: %v\n%s", do, err, &stderr)
	}
	if do == "status" {
		var picture struct{ Relays []switched }
		check(t, json.Unmarshal(stdout.Bytes(), &picture))
		if len(picture.Relays) != 1 {
			t.Fatalf("shimtrace status: %s", &stdout)
		}
		return picture.Relays[0]
	}
	check(t, json.Unmarshal(stdout.Bytes(), &s))
	return s
}

// TestDynamic is a pod in a VM of which tracing is on in its middle: one trace of one
// exec, as deep as what is traced, and nothing of before and after.
func TestDynamic(t *testing.T) {
	shipper, err := traced.ImpatientShipper(t.TempDir()) // it is what receives
	check(t, err)
	jaeger := "[jaeger]\nreceive = 'on'\n[export]\nshipper = '" + shipper + "'\n"
	ownTracing := []string{"VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://" + runtimesEndpoint + "/api/traces"}
	for name, tt := range map[string]struct {
		config string
		env    []string
		path   []string // from the agent's exec_process upwards, by the ends of names
	}{
		"agent":                {"[trace]\n", nil, []string{"exec_process", "Task/Start", "tracing switched on"}},
		"requests":             {"inject = 'on'\n[trace]\n", nil, []string{"exec_process", "AgentService/ExecProcess", "Task/Start", "tracing switched on"}},
		"runtime":              {jaeger + "[trace]\n", ownTracing, []string{"exec_process", "ttrpc.ExecProcess", "exec", "Start", "Task/Start", "tracing switched on"}},
		"requests and runtime": {"inject = 'on'\n" + jaeger + "[trace]\n", ownTracing, []string{"exec_process", "AgentService/ExecProcess", "ttrpc.ExecProcess", "exec", "Start", "Task/Start", "tracing switched on"}},
		"isolated":             {"[trace]\ntype = 'isolated'\n", nil, []string{"exec_process"}},
	} {
		t.Run(name, func(t *testing.T) {
			in, runtime := wrapped(t, tt.config+"mode = 'dynamic'\nslow = '1h'\n", tt.env...)
			var on switched
			pod := podLife(t, in.Rig, runtime, func(p pod) {
				eventually(t, "spans to arrive while tracing is off", func() bool { return turn(t, in, "status").Unrecorded > 0 })
				if segments, _ := filepath.Glob(filepath.Join(in.Journal, "*.seg")); len(segments) > 0 {
					t.Errorf("tracing is off, but the journal has %q", segments)
				}
				on = turn(t, in, "on", "p")
				check(t, in.Rig.Crictl("exec", "-s", p.app, "true").Check())
				if off := turn(t, in, "off", "p"); off.TraceID != on.TraceID || off.On {
					t.Errorf("on %+v, off %+v", on, off)
				}
				check(t, in.Rig.Crictl("exec", "-s", p.app, "true").Check())
			})
			spans := waitSpans(t, in, pod.sandbox, "root-span", "exec_process", "tracing switched off")
			byID := map[string]otlprecv.Span{}
			for _, s := range spans {
				byID[s.ID] = s
			}
			root := otlprecv.Named(spans, "tracing switched on")
			if len(root) != 1 || root[0].TraceID != on.TraceID {
				t.Fatalf("roots %v", root)
			}
			for _, s := range spans {
				linked := slices.ContainsFunc(s.Links, func(l *tracepb.Span_Link) bool { return hex.EncodeToString(l.SpanId) == root[0].ID })
				isolated := name == "isolated" && s.Service() == "kata-agent"
				switch {
				case s.TraceID == on.TraceID && s.ParentID == "" && s.ID != root[0].ID:
					t.Errorf("%s is a root", s.Name)
				case (s.TraceID != on.TraceID) != isolated:
					t.Errorf("%s is in trace %s, tracing was on as %s", s.Name, s.TraceID, on.TraceID)
				case isolated && s.ParentID == "" && !linked:
					t.Errorf("%s is not linked to the window", s.Name)
				}
			}
			for _, s := range orphans(spans) {
				t.Errorf("%s is an orphan", s.Name)
			}
			for _, name := range []string{"create_sandbox", "create_container", "start_container", "destroy_sandbox", "CreateContainer", "ttrpc.CreateContainer", "lost agent span"} {
				if n := len(otlprecv.Named(spans, name)) + len(otlprecv.Named(spans, agentService+name)); n > 0 {
					t.Errorf("%d spans %s, which was not in the window", n, name)
				}
			}
			execs := otlprecv.Named(spans, "exec_process")
			if len(execs) != 1 {
				t.Fatalf("%d execs, want 1", len(execs))
			}
			var path []string
			for s, ok := execs[0], true; ok; s, ok = byID[s.ParentID] {
				path = append(path, s.Name)
			}
			if !slices.EqualFunc(path, tt.path, strings.HasSuffix) {
				t.Errorf("exec_process is at %q, want %q", path, tt.path)
			}
			checkSecrets(t, in)
		})
	}
}
