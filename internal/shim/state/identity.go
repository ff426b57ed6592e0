package state

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/names"
)

// Identity is what the resource of a sandbox's spans says.
type Identity struct {
	Sandbox   string      `json:"sandbox"`
	Namespace string      `json:"namespace"`
	Inner     string      `json:"inner"`             // path of the inner shim
	Runtime   string      `json:"runtime,omitempty"` // its wrapper's name, without what all share
	Notes     Annotations `json:"notes,omitempty"`
	// Run is the id of the sandbox's own trace, which no other run of a sandbox of the
	// same id has.
	Run trace.TraceID `json:"-"`
}

// Attributes returns the identity as attributes of a resource.
func (id Identity) Attributes() []attribute.KeyValue {
	attrs := append(id.Notes.Pod(), attribute.String(names.Sandbox, id.Sandbox), attribute.String(names.Namespace, id.Namespace),
		semconv.ServiceInstanceID(id.Run.String()), id.Notes.engine())
	if id.Runtime != "" {
		attrs = append(attrs, attribute.String(names.Runtime, id.Runtime))
	}
	return attrs
}
