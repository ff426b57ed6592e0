package vmshim_test

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/traced"
)

const runtimeService = "kata-runtime"

// runtimePod runs a pod under a shim that traces itself, with shimtrace for its Jaeger,
// and returns the pod's spans once all is there.
func runtimePod(t *testing.T, config string) []otlprecv.Span {
	t.Helper()
	shipper, err := traced.ImpatientShipper(t.TempDir()) // it is what receives
	check(t, err)
	in, runtime := wrapped(t, config+"\n[jaeger]\nreceive = 'on'\n[export]\nshipper = '"+shipper+"'\n",
		"VMSHIM_TRACING=on", "VMSHIM_JAEGER=http://"+runtimesEndpoint+"/api/traces")
	pod := podLife(t, in.Rig, runtime)
	spans := waitSpans(t, in, pod.sandbox, "root-span", "shim delete", "rootSpan")
	checkSecrets(t, in)
	return spans
}

// TestRuntimeTraced is one trace of five levels: the sandbox, a call of the shim, what
// the runtime does for it, its request to the agent, what the agent does for that.
func TestRuntimeTraced(t *testing.T) {
	for _, inject := range []string{"off", "on"} {
		t.Run("inject "+inject, func(t *testing.T) {
			spans := runtimePod(t, "inject = '"+inject+"'")
			byID := checkTree(t, spans)
			checkRuntime(t, spans, byID)
			asked := map[string]int{}
			for _, s := range spans {
				if cause[s.Name] == "" || s.Service() != "kata-agent" {
					continue
				}
				above := byID[s.ParentID]
				if inject == "on" {
					if snake(above.Name) != s.Name {
						t.Errorf("%s is not under its relayed request: %s", s.Name, path(byID, s))
					}
					above = byID[above.ParentID]
				}
				method, is := strings.CutPrefix(above.Name, "ttrpc.")
				if !is || snake(method) != s.Name || above.Service() != runtimeService {
					t.Errorf("%s is not under the runtime's request: %s", s.Name, path(byID, s))
				}
				asked[method]++
			}
			for method, n := range podRequests {
				if asked[method] != n {
					t.Errorf("%d times %s, want %d", asked[method], method, n)
				}
			}
			if n := len(requests(spans)); (n > 0) != (inject == "on") {
				t.Errorf("%d relayed requests have spans", n)
			}
			logPaths(t, byID, spans)
		})
	}
}

// checkRuntime holds the runtime's spans to their places: each of its calls directly
// below ours, and below nothing that is quiet.
func checkRuntime(t *testing.T, spans []otlprecv.Span, byID map[string]otlprecv.Span) {
	t.Helper()
	calls := map[string]int{} // of ours, by id: the runtime's directly below
	for _, s := range spans {
		if s.Service() != runtimeService {
			continue
		}
		parent := byID[s.ParentID]
		switch {
		case s.Name == "rootSpan":
			if parent.Name != "sandbox start" {
				t.Errorf("rootSpan is at %s", path(byID, s))
			}
		case s.Name == "AddEndpoints" || strings.HasPrefix(s.Name, "ttrpc.Read") || s.Name == "State" || s.Name == "Connect" || s.Name == "Wait":
			t.Errorf("%s is quiet", path(byID, s))
		case s.Name == "waitProcess" && parent.Service() != runtimeService:
			// It began long after the Start that it names.
			if !slices.ContainsFunc(spans, func(start otlprecv.Span) bool { return start.Name == "Start" && linked(s, start) }) {
				t.Errorf("%s is linked to %v, not to what it names", path(byID, s), s.Links)
			}
		case parent.Service() != runtimeService:
			method := parent.Name[strings.LastIndexByte(parent.Name, '/')+1:]
			if !strings.EqualFold(s.Name, method) {
				t.Errorf("%s is at %s", s.Name, path(byID, s))
			}
			if s.StartTimeUnixNano < parent.StartTimeUnixNano/1000*1000 || s.EndTimeUnixNano > parent.EndTimeUnixNano+1000 {
				t.Errorf("%s is not within its call", path(byID, s))
			}
			calls[parent.ID]++
		}
		if s.Resource["k8s.pod.name"] != "p" {
			t.Errorf("%s is of %v", s.Name, s.Resource)
		}
	}
	for _, s := range spans {
		// Whatever is recorded of the shim's calls, the runtime has done once; what it did
		// for a poll that found nothing is not kept.
		foundNothing := s.Attrs["shimtrace.expected"] == true && calls[s.ID] == 0
		if strings.HasPrefix(s.Name, "containerd.task.v3.Task/") && calls[s.ID] != 1 && !foundNothing {
			t.Errorf("%d spans of the runtime's for %s: %v", calls[s.ID], s.Name, s.Attrs)
		}
	}
}

// TestRuntimeIsolated: the runtime and the agent are in traces of their own. Links lead
// from the agent's to the runtime's requests, from there to our calls, and from all of
// them to the sandbox.
func TestRuntimeIsolated(t *testing.T) {
	spans := runtimePod(t, "[trace]\ntype = 'isolated'")
	byID := map[string]otlprecv.Span{}
	for _, s := range spans {
		byID[s.ID] = s
	}
	root := otlprecv.Named(spans, "sandbox start")[0]
	runtime := otlprecv.Named(spans, "rootSpan")[0]
	if runtime.TraceID == root.TraceID || !linked(runtime, root) {
		t.Fatalf("the runtime's root is in trace %s, linked to %v; the sandbox's is %s in %s", runtime.TraceID, runtime.Links, root.ID, root.TraceID)
	}
	calls, rpcs := 0, 0
	for _, s := range spans {
		switch s.Service() {
		case runtimeService:
			if s.TraceID != runtime.TraceID {
				t.Errorf("%s is not in the runtime's trace", path(byID, s))
			}
			if s.ParentID != runtime.ID {
				continue
			}
			calls++
			if !slices.ContainsFunc(spans, func(call otlprecv.Span) bool {
				return linked(s, call) && strings.EqualFold(call.Name, "containerd.task.v3.Task/"+s.Name)
			}) {
				t.Errorf("%s is linked to %v, not to our call", s.Name, s.Links)
			}
		case "kata-agent":
			if s.TraceID == runtime.TraceID || s.TraceID == root.TraceID {
				t.Errorf("%s is in another's trace", path(byID, s))
			}
			if cause[s.Name] == "" {
				continue
			}
			rpcs++
			if !linked(s, root) || !slices.ContainsFunc(spans, func(request otlprecv.Span) bool {
				method, is := strings.CutPrefix(request.Name, "ttrpc.")
				return is && snake(method) == s.Name && linked(s, request)
			}) {
				t.Errorf("%s is linked to %v, not to the sandbox and the runtime's request", s.Name, s.Links)
			}
		default:
			if s.TraceID != root.TraceID {
				t.Errorf("%s is not in the sandbox's trace", path(byID, s))
			}
		}
	}
	if calls == 0 || rpcs == 0 {
		t.Errorf("%d calls, %d requests", calls, rpcs)
	}
	logPaths(t, byID, spans)
}

func linked(from, to otlprecv.Span) bool {
	return slices.ContainsFunc(from.Links, func(l *tracepb.Span_Link) bool { return hex.EncodeToString(l.SpanId) == to.ID })
}

// path is a span's name with those above it.
func path(byID map[string]otlprecv.Span, s otlprecv.Span) string {
	var names []string
	for ; s.Span != nil; s = byID[s.ParentID] {
		names = append(names, s.Name)
	}
	slices.Reverse(names)
	return strings.Join(names, " > ")
}

func logPaths(t *testing.T, byID map[string]otlprecv.Span, spans []otlprecv.Span) {
	t.Helper()
	if t.Failed() {
		for _, s := range spans {
			t.Log(path(byID, s))
		}
	}
}
