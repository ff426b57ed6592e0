package collate

import "github.com/shimtrace/shimtrace/internal/kata"

// rpc is what is known of an agent's RPC (package kata) by its name, which is the name
// of the span that its handler opens.
type rpc struct {
	name string
	// request is the method of the agent's service; empty for what is none.
	request string
	// methods are the calls of the shim that cause it; none: it belongs to the
	// sandbox as a whole.
	methods []string
	// ordered: the first of them is the likelier, wherever the guest's clock has it.
	ordered bool
	// once: it is made at most once in the life of what its ids name, and answered
	// before the call that causes it is. Only such a pair tells about clocks.
	once bool
	// clock: it sets the guest's clock.
	clock bool
	// life: it is none, but a span of the agent's own that lasts as long as it
	// does. Its children arrive long before it.
	life bool
	// call: it is none, but a call of the shim as its runtime sees it.
	call bool
}

// rpcs are the agent's RPCs and its life-long spans.
var rpcs = func() map[string]*rpc {
	m := make(map[string]*rpc, len(kata.Requests)+len(kata.LifeLong))
	for i := range kata.Requests {
		r := &kata.Requests[i]
		m[r.Span] = &rpc{name: r.Span, request: r.Name, methods: r.CausedBy, ordered: r.Ordered, once: r.Once, clock: r.SetsClock}
	}
	for _, name := range kata.LifeLong {
		m[name] = &rpc{name: name, life: true}
	}
	return m
}()

// lostParent returns the RPC that a span of this name is a child of, nil if its
// name does not say.
func lostParent(child string) *rpc { return rpcs[kata.ParentSpan(child)] }

// byRequest are the RPCs by their request.
var byRequest = func() map[string]*rpc {
	m := make(map[string]*rpc)
	for _, r := range rpcs {
		if r.request != "" {
			m[r.request] = r
		}
	}
	return m
}()

// causes are the methods that can cause anything in the agent.
var causes = func() map[string]bool {
	m := make(map[string]bool)
	for _, r := range rpcs {
		for _, method := range r.methods {
			m[method] = true
		}
	}
	return m
}()
