package collate

import (
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/forwarder/recent"
)

// runtime is the source on the host. It has traces of its own: one for the sandbox's life (the
// Go runtime), or several (runtime-rs). Its spans for calls of the shim go below these calls;
// what is below them follows, requests to the agent included. Their common parent is life-long,
// arrives last or never, and keeps only spans that are no calls.
type runtime struct {
	*source
	roots   recent.Map[trace.SpanID, struct{}] // the parents that calls name
	pending []*node                            // quiet calls without an answer
}

// maxRoots bounds the remembered roots; a runtime has one.
const maxRoots = 64

// learnRoot takes a call's parent as the runtime's root, unless that parent is known as another
// span: the Go runtime puts a pod's later creates below its first.
func (r *runtime) learnRoot(n *node) {
	parent := trace.SpanID(n.ParentID)
	if !parent.IsValid() || r.roots.Has(parent) || r.has(parent) {
		return
	}
	r.roots.Put(parent, struct{}{})
	r.Stale(parent)
	if waits := r.waiting.nodes[parent]; waits != nil && !r.opts.Isolated {
		for _, child := range r.waiting.orphans(waits) {
			r.settle(child)
		}
	}
}

// alone implements origin. In isolated traces, spans stay below the runtime's root.
func (r *runtime) alone(n *node) bool {
	return n.IsCall() || r.QuietSpan(&n.Span) || !r.opts.Isolated && r.roots.Has(n.ParentID)
}

// root implements origin.
func (r *runtime) root(n *node) {
	if r.Pending(&n.Span) {
		r.waiting.hold(n, r.now())
		r.pending = append(r.pending, n)
		return
	}
	r.place(n)
}

// place implements origin.
func (r *runtime) place(n *node) {
	cause := r.cause(n)
	if parent := trace.SpanID(n.ParentID); r.opts.Isolated && parent.IsValid() && cause.Drop == "" {
		n.link = cause.Link
		r.settleBelow(n)
		return
	}
	r.send(n, cause, cause.Parent)
}

// decide places the quiet calls that have been answered.
func (r *runtime) decide() {
	waiting := r.pending
	r.pending = nil
	for _, n := range waiting {
		if r.waiting.nodes[n.id] == n && n.age != nil {
			r.root(n)
		}
	}
}

// fromAbove implements origin: no source is above the runtime.
func (r *runtime) fromAbove(*node) bool { return false }
