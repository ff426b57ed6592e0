package collate

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	keys "github.com/shimtrace/shimtrace/internal/names"
)

// TestClaims: a guest's span is about a container or an exec only if the host knows it; other
// ids are kept under another key.
func TestClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		container, exec string
		known, process  bool
	}{
		"the sandbox":                     {"pod", "", true, true},
		"a container of its":              {"a", "", true, true},
		"an exec of it":                   {"a", "x", true, true},
		"a container whose Create failed": {"failed", "", true, true},
		"another's container":             {"victim", "", false, true},
		"another's exec":                  {"victim", "x", false, false},
		"an exec of nobody's":             {"a", "y", true, false},
		"another container's exec":        {"b", "x", true, false},
		"by a request":                    {"c", "uuid", true, true},
		"a container that is only named":  {"named", "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, func(o *Options) { o.Sandbox = "pod" })
			b.called("Create", "a", "", 0xC1, 0, 100)
			b.called("Create", "b", "", 0xC2, 0, 100)
			b.called("Kill", "named", "", 0xC3, 0, 100)
			b.Call(calls.Call{Method: "Create", ContainerID: "failed", Failed: true}) // and not recorded
			b.Call(calls.Call{Method: "Exec", ContainerID: "a", ExecID: "x"})
			b.Request(calls.Call{Method: "CreateContainer", ContainerID: "c"}, trace.SpanContext{})
			b.Request(calls.Call{Method: "ExecProcess", ContainerID: "c", ExecID: "uuid"}, trace.SpanContext{})
			s := of(spanOf("signal_process", 7, 1, 0, 10, 20), tc.container, tc.exec)
			b.Add(s)
			r := ofRuntime("createAssets", 8, 2, 0, 10, 20)
			r.ContainerID = tc.container
			b.AddRuntime(r)
			b.Ended()
			for key, want := range map[string]struct {
				id    string
				there bool
			}{
				keys.Container: {tc.container, tc.known}, keys.ClaimedContainer: {tc.container, !tc.known},
				keys.Exec: {tc.exec, tc.process && tc.exec != ""}, keys.ClaimedExec: {tc.exec, !tc.process},
			} {
				got := attribute(b.get(1), key)
				if (got != nil) != want.there || got != nil && got.GetStringValue() != want.id {
					t.Errorf("%s is %v", key, got)
				}
			}
			if attribute(b.get(2), keys.Container) == nil {
				t.Error("the runtime is the host's, and is believed")
			}
		})
	}
}
