package rig_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shimtrace/shimtrace/integration/image"
	"github.com/shimtrace/shimtrace/integration/otlprecv"
	"github.com/shimtrace/shimtrace/integration/rig"
	"github.com/shimtrace/shimtrace/integration/toolset"
)

// With its own tracing on, containerd's spans and those of a shim that Path
// puts first meet in one trace in a receiver inside the rig's network.
func TestSpansOfContainerdAndShim(t *testing.T) {
	r := rig.Start(t, rig.Options{
		Path: []string{dirOf(t, toolset.TracingShim)},
		Env:  []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", "OTEL_SERVICE_NAME=containerd"},
	})
	recv, err := otlprecv.Listen(otlprecv.Options{NetNS: r.NetNS(), HTTPAddr: "127.0.0.1:4318"})
	check(t, err)
	defer recv.Close()

	check(t, r.Ctr("run", "--rm", image.Busybox, "c1", "true").Check())
	_, err = recv.Wait(30*time.Second, func(spans []otlprecv.Span) bool {
		traces := map[string]string{} // by trace id, the service of its first span
		for _, s := range spans {
			if s.Service() == "containerd" {
				traces[s.TraceID] = s.Service()
			}
		}
		for _, s := range spans {
			if s.Service() != "containerd" && traces[s.TraceID] != "" && s.ParentID != "" {
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Errorf("no span of the shim in a trace of containerd: %v", err)
	}
}

// Every client reaches a shim that is not containerd's own: CRI by a handler,
// in both versions' formats of the configuration, ctr by its path, and nerdctl
// by a type for which containerd searches Path.
func TestRuntimeHandlers(t *testing.T) {
	for v, tool := range map[rig.Version]toolset.Tool{rig.V24: toolset.Containerd24, rig.V17: toolset.Containerd17} {
		t.Run(string(v), func(t *testing.T) {
			other := filepath.Join(t.TempDir(), "containerd-shim-other-v2")
			// A copy, because the shim starts itself again by its resolved name.
			program, err := os.ReadFile(filepath.Join(dirOf(t, tool), "containerd-shim-runc-v2"))
			check(t, err)
			check(t, os.WriteFile(other, program, 0o755))
			rt := rig.Runtime{Name: "other", Type: rig.Runc.Type, Path: other}
			r := rig.Start(t, rig.Options{Version: v, Runtimes: []rig.Runtime{rt}, Path: []string{filepath.Dir(other)}})

			pod, err := r.RunPod(rig.Pod{Name: "p", Runtime: rt.Name, HostNetwork: true})
			check(t, err)
			wantShim(t, r, other)
			check(t, pod.Remove())

			check(t, r.Ctr("run", "--detach", "--runtime", rt.Shim(), image.Busybox, "c1", "sleep", "1000").Check())
			wantShim(t, r, other)
			check(t, r.Ctr("tasks", "delete", "--force", "c1").Check())

			check(t, r.Nerdctl("run", "--detach", "--net", "none", "--runtime", "io.containerd.other.v2",
				image.Busybox, "sleep", "1000").Check())
			wantShim(t, r, other)
		})
	}
}

func wantShim(t *testing.T, r *rig.Rig, path string) {
	t.Helper()
	shims := r.Shims()
	if len(shims) != 1 || shims[0].Args[0] != path {
		t.Errorf("shims %v, want one of %s", shims, path)
	}
}

// dirOf is where a tool is; a test cannot go on without it.
func dirOf(t *testing.T, tool toolset.Tool) string {
	t.Helper()
	return tool.Dir(tool.Needed(t))
}
