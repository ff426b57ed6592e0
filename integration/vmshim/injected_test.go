package vmshim_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
)

const agentService = "grpc.AgentService/"

// podRequests are the requests to the agent of a podLife that tell whether all of it
// is there.
var podRequests = map[string]int{
	"CreateSandbox": 1, "UpdateInterface": 1, "UpdateRoutes": 1, "GetGuestDetails": 1, "CreateContainer": 3, "StartContainer": 3,
	"ExecProcess": 1, "RemoveContainer": 3, "DestroySandbox": 1,
}

// ended are the last spans of a sandbox whose requests are recorded.
var ended = []string{"root-span", agentService + "DestroySandbox", "containerd.task.v3.Task/Shutdown", "shim delete"}

// TestInjected is one trace from the shim's calls through the runtime's requests into
// the VM: nothing in it has been inferred but what no request asks for.
func TestInjected(t *testing.T) {
	for _, encoding := range []string{"json", "bincode"} {
		t.Run(encoding, func(t *testing.T) {
			in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_AGENT_FLAGS=--flush-ms 200 --encoding "+encoding)
			pod := podLife(t, in.Rig, runtime)
			spans := waitSpans(t, in, pod.sandbox, ended...)
			byID := checkTree(t, spans)
			checkRequests(t, spans, byID, podRequests)
			for _, s := range spans {
				if cause[s.Name] == "" || s.Service() != "kata-agent" {
					continue
				}
				request := byID[s.ParentID]
				if snake(request.Name) != s.Name {
					t.Errorf("%s is under %s", s.Name, request.Name)
				}
				if id := s.Attrs["container.id"]; id != nil && id != request.Attrs["container.id"] {
					t.Errorf("%s of %v is under %s of %v", s.Name, id, request.Name, request.Attrs["container.id"])
				}
			}
			for name, n := range podAgents {
				if got := len(otlprecv.Named(spans, name)); got != n {
					t.Errorf("%d spans %s, want %d", got, name, n)
				}
			}
			for _, s := range requests(spans) {
				if s.Attrs["container.id"] == pod.app && s.Attrs["container.name"] != "app" {
					t.Errorf("%s of container app says %v", s.Name, s.Attrs)
				}
			}
			checkSecrets(t, in)
		})
	}
}

// TestInjectedAlone: requests tell their story whether the agent traces or not, and how
// one failed, which no span of the agent's says. A quiet one that failed is there, and
// so is the call that caused it.
func TestInjectedAlone(t *testing.T) {
	in, runtime := wrapped(t, "inject = 'on'\n[runtime.vmrunc.agent]\nreceive = 'off'\n", "VMSHIM_AGENT_FLAGS=--fail SignalProcess,StatsContainer")
	pod := podLife(t, in.Rig, runtime, func(p pod) { check(t, in.Rig.Ctr("--namespace", "k8s.io", "tasks", "metrics", p.app).Check()) })
	spans := waitSpans(t, in, pod.sandbox, ended[1:]...)
	byID := checkTree(t, spans)
	for method, n := range podRequests {
		if got := len(otlprecv.Named(spans, agentService+method)); got != n {
			t.Errorf("%d requests %s, want %d", got, method, n)
		}
	}
	failed := map[string]int{}
	for _, s := range requests(spans) {
		method := strings.TrimPrefix(s.Name, agentService)
		if s.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR {
			continue
		}
		failed[method]++
		if want := method + " is told to fail"; s.Status.GetMessage() != want || s.Attrs["error.type"] != "INTERNAL" {
			t.Errorf("%s failed with %v, %v", method, s.Status, s.Attrs)
		}
		call := byID[s.ParentID]
		want := map[string]string{"SignalProcess": "Kill", "StatsContainer": "Stats"}[method]
		if !strings.HasSuffix(call.Name, "/"+want) {
			t.Errorf("%s is under %s, %v", method, call.Name, call.Attrs)
		}
		if want == "Stats" && call.Attrs["rpc.response.status_code"] == "OK" {
			failed["below a quiet call"]++
		}
	}
	if failed["SignalProcess"] == 0 || failed["StatsContainer"] == 0 || failed["below a quiet call"] == 0 || len(failed) > 3 {
		t.Errorf("failed: %v", failed)
	}
}

// TestInjectedIsolated: requests have their spans, but what the agent does is in traces
// of its own, linked to the sandbox's.
func TestInjectedIsolated(t *testing.T) {
	in, runtime := wrapped(t, "inject = 'on'\n[trace]\ntype = 'isolated'\n")
	pod := podLife(t, in.Rig, runtime)
	spans := waitSpans(t, in, pod.sandbox, ended...)
	root := otlprecv.Named(spans, "sandbox start")[0]
	ours := slices.DeleteFunc(slices.Clone(spans), func(s otlprecv.Span) bool { return s.Service() == "kata-agent" })
	checkRequests(t, ours, checkTree(t, ours), podRequests)
	for _, s := range spans {
		if s.Service() != "kata-agent" {
			continue
		}
		if s.TraceID == root.TraceID {
			t.Errorf("%s is in the sandbox's trace", s.Name)
		}
		if s.ParentID == "" && !slices.ContainsFunc(s.Links, func(l *tracepb.Span_Link) bool { return hex.EncodeToString(l.SpanId) == root.ID }) {
			t.Errorf("%s is not linked to the sandbox", s.Name)
		}
	}
}

// TestInjectedTracingRuntime: the contexts of a runtime that traces for somebody else
// are replaced, and linked.
func TestInjectedTracingRuntime(t *testing.T) {
	in, runtime := wrapped(t, "inject = 'on'\n", "VMSHIM_TRACING=on")
	pod := podLife(t, in.Rig, runtime)
	spans := waitSpans(t, in, pod.sandbox, ended...)
	byID := checkTree(t, spans)
	checkRequests(t, spans, byID, podRequests)
	for _, s := range requests(spans) {
		if len(s.Links) != 1 || hex.EncodeToString(s.Links[0].TraceId) == s.TraceID {
			t.Errorf("%s is linked to %v", s.Name, s.Links)
		}
	}
	for _, s := range spans {
		if cause[s.Name] != "" && s.Service() == "kata-agent" && snake(byID[s.ParentID].Name) != s.Name {
			t.Errorf("%s is under %s", s.Name, byID[s.ParentID].Name)
		}
	}
}

// TestInjectedWithCaller is the whole way: containerd's own span, the shim's call under
// it, the request under that, what the agent did under that.
func TestInjectedWithCaller(t *testing.T) {
	in, runtime, recv := collecting(t, "inject = 'on'\n")
	podLife(t, in.Rig, runtime)
	for name, n := range map[string]int{"create_container": 3, "exec_process": 1} {
		spans, err := recv.Wait(time.Minute, func(spans []otlprecv.Span) bool { return callers(spans, name, 2) == n })
		if err != nil {
			t.Errorf("%d spans %s, %d with request, call and caller: %v", len(otlprecv.Named(spans, name)), name, callers(spans, name, 2), err)
		}
	}
}

// requests are the spans of requests to the agent.
func requests(spans []otlprecv.Span) []otlprecv.Span {
	return slices.DeleteFunc(slices.Clone(spans), func(s otlprecv.Span) bool { return !strings.HasPrefix(s.Name, agentService) })
}

// checkRequests holds requests to being of the runtime's side and below the call that
// caused them, with so many of some.
func checkRequests(t *testing.T, spans []otlprecv.Span, byID map[string]otlprecv.Span, want map[string]int) {
	t.Helper()
	for _, s := range requests(spans) {
		if strings.HasSuffix(s.Name, "/StatsContainer") {
			// containerd polls, also what has just gone.
			if s.Attrs["error.type"] == nil && s.Attrs["shimtrace.expected"] == nil && s.End().Sub(s.Start()) < 500*time.Millisecond {
				t.Errorf("%s, which is quiet, says %v", s.Name, s.Attrs)
			}
			continue
		}
		if s.Kind != tracepb.Span_SPAN_KIND_CLIENT || s.Service() != "containerd-shim-vmrunc-v2" {
			t.Errorf("%s is a %v of %s", s.Name, s.Kind, s.Service())
		}
		call := byID[s.ParentID]
		if causes := cause[snake(s.Name)]; causes != "" && !slices.Contains(strings.Fields(causes), call.Name[strings.LastIndexByte(call.Name, '/')+1:]) {
			t.Errorf("%s is under %s, want %s", s.Name, call.Name, causes)
		}
		if id := s.Attrs["container.id"]; id != nil && call.Attrs["container.id"] != nil && call.Attrs["container.id"] != id {
			t.Errorf("%s of %v is under %s of %v", s.Name, id, call.Name, call.Attrs["container.id"])
		}
		if !strings.HasSuffix(s.Name, "/DestroySandbox") && s.Attrs["rpc.response.status_code"] != "OK" {
			t.Errorf("%s says %v", s.Name, s.Attrs)
		}
		if s.StartTimeUnixNano < call.StartTimeUnixNano || call.Name != "sandbox start" && s.EndTimeUnixNano > call.EndTimeUnixNano {
			t.Errorf("%s is not within %s", s.Name, call.Name)
		}
	}
	for method, n := range want {
		if got := len(otlprecv.Named(spans, agentService+method)); got != n {
			t.Errorf("%d requests %s, want %d", got, method, n)
		}
	}
	for _, quiet := range []string{"WaitProcess", "ReadStdout", "ReadStderr", "WriteStdin", "GetOOMEvent"} {
		if n := len(otlprecv.Named(spans, agentService+quiet)); n > 0 {
			t.Errorf("%d requests %s, which is quiet", n, quiet)
		}
	}
}

// snake is the name of the agent's span for a request.
func snake(request string) string {
	var name strings.Builder
	for i, r := range strings.TrimPrefix(request, agentService) {
		if unicode.IsUpper(r) && i > 0 {
			name.WriteByte('_')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	return name.String()
}
