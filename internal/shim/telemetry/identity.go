package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
	"github.com/shimtrace/shimtrace/middleware"
)

// Attributes of resources that the semantic conventions have no name for.
const (
	// namespaceKey is containerd's namespace.
	namespaceKey = attribute.Key("shimtrace.containerd.namespace")
	// runtimeKey is the name that the wrapper was called by ("kata-qemu"): many of them
	// may have one inner shim, whose name the service's is.
	runtimeKey = attribute.Key("shimtrace.runtime")
)

// Identity is what the resource of a sandbox's spans says.
type Identity struct {
	Sandbox   string            `json:"sandbox"`
	Namespace string            `json:"namespace"`
	Inner     string            `json:"inner"`             // path of the inner shim
	Runtime   string            `json:"runtime,omitempty"` // what its wrapper was called by, without what all such names have
	Notes     state.Annotations `json:"notes,omitempty"`
	// Run is the id of the sandbox's own trace, which no other run of a sandbox of the
	// same id has.
	Run trace.TraceID `json:"-"`
}

// Identify returns the identity of the sandbox that a container is in, for a wrapper that
// was called by the program's name.
func Identify(program, namespace, container, bundle, inner string) Identity {
	notes, err := state.ReadAnnotations(bundle)
	if err != nil {
		notes = nil // no spec, no pod: the spans say less
	}
	name, _ := shimname.ParseLink(program)
	return Identity{
		Sandbox: notes.SandboxID(container), Namespace: namespace, Inner: inner, Runtime: name.Inner, Notes: notes,
	}
}

// Attributes returns the identity as attributes of a resource.
func (id Identity) Attributes() []attribute.KeyValue {
	attrs := append(id.Notes.Pod(), middleware.SandboxIDKey.String(id.Sandbox), namespaceKey.String(id.Namespace),
		semconv.ServiceInstanceID(id.Run.String()))
	if id.Runtime != "" {
		attrs = append(attrs, runtimeKey.String(id.Runtime))
	}
	return attrs
}
