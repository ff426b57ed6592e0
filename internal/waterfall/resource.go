package waterfall

import (
	"github.com/shimtrace/shimtrace/internal/names"

	"github.com/shimtrace/shimtrace/internal/otlpwire"
)

// resource holds the used attributes of a resource.
type resource struct {
	raw string

	service, runtime  string
	host, namespace   string
	sandbox, run      string
	pod, podNamespace string
	made              Maker
	others            bool // it is from a message that other programs posted
}

// Maker is who made a span, according to the host, not the span.
type Maker uint8

const (
	ByOthers  Maker = iota // another program of the host
	ByShim                 // shimtrace itself
	ByRuntime              // Kata's runtime
	ByAgent                // the agent in a VM: its clock and its claims are a guest's
)

// maxField bounds each text kept of a resource or a span, in bytes.
const maxField = 1 << 10

func newResource(msg []byte) *resource {
	r := &resource{raw: string(msg)}
	for key, value := range attributes(msg, otlpwire.ResourceAttributes) {
		for _, f := range []struct {
			key string
			to  *string
		}{
			{names.Service, &r.service}, {names.Runtime, &r.runtime}, {names.Host, &r.host}, {names.Namespace, &r.namespace},
			{names.Sandbox, &r.sandbox}, {names.Run, &r.run}, {names.Pod, &r.pod}, {names.PodNamespace, &r.podNamespace},
		} {
			if *f.to == "" && string(key) == f.key {
				*f.to = cutText(valueText(value, 0))
			}
		}
	}
	switch r.service {
	case names.AgentScope:
		r.made = ByAgent
	case names.RuntimeScope:
		r.made = ByRuntime
	}
	return r
}

// disown makes the resource another program's. What such a program says about sandboxes and
// pods counts for nothing, and so does whom it claims to be.
func (r *resource) disown() {
	*r = resource{raw: r.raw, service: r.service, host: r.host, made: ByOthers, others: true}
}

// maker returns who made the spans of a scope. The host sets both scope and resource: a
// guest's spans are the agent's, whatever they claim.
func (r *resource) maker(scope []byte) Maker {
	if r.others {
		return ByOthers
	}
	switch string(scope) {
	case names.ShimScope, names.CallScope:
		return ByShim
	case names.AgentScope:
		return ByAgent
	case names.RuntimeScope:
		return ByRuntime
	}
	return r.made
}

func cutText(text string) string { return text[:min(len(text), maxField)] }
