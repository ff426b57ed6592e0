package process

import (
	"encoding/json"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/command"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/internal/shim/standby"
	"github.com/shimtrace/shimtrace/internal/shim/state"
)

// TestIdentity: spans say which wrapper was called, whatever inner shim it has, and which
// run it is, also those that another process makes.
func TestIdentity(t *testing.T) {
	who := command.Line{Program: "/usr/local/bin/containerd-shim-kata-qemu-traced-v2", ID: "box", Namespace: "k8s.io", Inner: "/opt/kata/bin/containerd-shim-kata-v2"}.Identity(nil)
	run := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 7}, SpanID: trace.SpanID{7: 8}})
	who.Run = run.TraceID()
	wanted := []string{
		"shimtrace.sandbox.id=box", "shimtrace.containerd.namespace=k8s.io",
		"service.instance.id=00000000000000000000000000000007", "container.runtime.name=containerd", "shimtrace.runtime=kata-qemu",
	}
	shimtest.Want(t, who.Attributes(), wanted...)

	text, err := json.Marshal(standby.Recording{Who: who, State: state.State{Trace: state.NewTraceContext(run)}})
	if err != nil {
		t.Fatal(err)
	}
	var r standby.Recording
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	shimtest.Want(t, identity(&r).Attributes(), wanted...)

	byHand := command.Line{Program: "/tmp/shim", ID: "box", Namespace: "k8s.io"}.Identity(nil)
	shimtest.Want(t, byHand.Attributes(), "shimtrace.sandbox.id=box", "shimtrace.containerd.namespace=k8s.io", "service.instance.id=00000000000000000000000000000000", "container.runtime.name=containerd")
}
