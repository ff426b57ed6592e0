package waterfall

// resource is what a resource says of the spans that have it.
type resource struct {
	raw string

	service, runtime  string
	host, namespace   string
	sandbox, run      string
	pod, podNamespace string
	made              maker
}

// maker is who made a span, as the host says, not the span.
type maker uint8

const (
	byOthers  maker = iota // a program of the host
	byShim                 // shimtrace itself
	byRuntime              // Kata's runtime
	byAgent                // the agent in a VM: its clock and its claims are a guest's
)

// maxField bounds a text of a resource or a span that is kept, in bytes.
const maxField = 1 << 10

func newResource(msg []byte) *resource {
	r := &resource{raw: string(msg)}
	for key, value := range attributes(msg, resourceAttributes) {
		for _, f := range []struct {
			key string
			to  *string
		}{
			{attrService, &r.service}, {attrRuntime, &r.runtime}, {attrHost, &r.host}, {attrNamespace, &r.namespace},
			{attrSandbox, &r.sandbox}, {attrRun, &r.run}, {attrPod, &r.pod}, {attrPodNamespace, &r.podNamespace},
		} {
			if *f.to == "" && string(key) == f.key {
				*f.to = cutText(valueText(value, 0))
			}
		}
	}
	switch r.service {
	case agentService:
		r.made = byAgent
	case kataService:
		r.made = byRuntime
	}
	return r
}

// Scopes of spans, docs/spans.md.
const (
	shimScope    = "github.com/shimtrace/shimtrace/shim"
	callScope    = "github.com/shimtrace/shimtrace/middleware"
	agentScope   = "kata-agent"
	runtimeScope = "kata-runtime"
)

// maker returns who made the spans of a scope under the resource. The host stamps
// both: a guest's spans are the agent's, whatever they claim.
func (r *resource) maker(scope []byte) maker {
	switch string(scope) {
	case shimScope, callScope:
		return byShim
	case agentScope:
		return byAgent
	case runtimeScope:
		return byRuntime
	}
	return r.made
}

func cutText(text string) string { return text[:min(len(text), maxField)] }
