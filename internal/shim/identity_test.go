package shim

import (
	"encoding/json"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestIdentity: spans say which wrapper was called, whatever inner shim it has, and which
// run it is, also those that another process makes.
func TestIdentity(t *testing.T) {
	c := command{program: "/usr/local/bin/containerd-shim-kata-qemu-traced-v2", id: "box", namespace: "k8s.io", bundle: t.TempDir()}
	who := c.identity("/opt/kata/bin/containerd-shim-kata-v2")
	run := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 7}, SpanID: trace.SpanID{7: 8}})
	who.Run = run.TraceID()
	wanted := []string{
		"shimtrace.sandbox.id=box", "shimtrace.containerd.namespace=k8s.io",
		"service.instance.id=00000000000000000000000000000007", "shimtrace.runtime=kata-qemu",
	}
	shimtest.Want(t, who.Attributes(), wanted...)

	text, err := json.Marshal(newRecording(who, "box", state.State{Trace: state.NewTraceContext(run)}, state.Timing{}))
	if err != nil {
		t.Fatal(err)
	}
	var r recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	shimtest.Want(t, r.identity().Attributes(), wanted...)

	byHand := command{program: "/tmp/shim", id: "box", namespace: "k8s.io", bundle: t.TempDir()}.identity("x")
	shimtest.Want(t, byHand.Attributes(), "shimtrace.sandbox.id=box", "shimtrace.containerd.namespace=k8s.io", "service.instance.id=00000000000000000000000000000000")
}
