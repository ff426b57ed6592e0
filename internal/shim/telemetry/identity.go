package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
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
	attrs := append(id.Notes.Pod(), attribute.String(names.Sandbox, id.Sandbox), attribute.String(names.Namespace, id.Namespace),
		semconv.ServiceInstanceID(id.Run.String()))
	if id.Runtime != "" {
		attrs = append(attrs, attribute.String(names.Runtime, id.Runtime))
	}
	return attrs
}
