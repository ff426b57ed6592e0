package calls

import (
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// kind is what the name of a span says of it (package kata).
type kind struct {
	// request is the method of the agent's service that the agent's span serves; empty
	// for what serves none.
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
	// life: it serves nothing, but lasts as long as the agent or the runtime does. Its
	// children arrive long before it.
	life bool
	// call: it is a call of the shim as the runtime serves it.
	call bool
}

// agentKinds are the agent's requests and its life-long spans, by the name of the span.
var agentKinds = func() map[string]*kind {
	m := make(map[string]*kind, len(kata.Requests)+len(kata.LifeLong))
	for i := range kata.Requests {
		r := &kata.Requests[i]
		m[r.Span] = &kind{request: r.Name, methods: r.CausedBy, ordered: r.Ordered, once: r.Once, clock: r.SetsClock}
	}
	for _, name := range kata.LifeLong {
		m[name] = lifeLong
	}
	return m
}()

var lifeLong = &kind{life: true}

// requestKinds are the agent's requests by their names.
var requestKinds = func() map[string]*kind {
	m := make(map[string]*kind)
	for _, k := range agentKinds {
		if k.request != "" {
			m[k.request] = k
		}
	}
	return m
}()

var execProcess = requestKinds[kata.ExecProcess]

// callKinds are the task service's calls as spans of the runtime, by their methods.
var callKinds = func() map[string]*kind {
	m := make(map[string]*kind)
	for i := range kata.Calls {
		if method := kata.Calls[i].Method; !kata.Calls[i].Sandbox {
			m[method] = &kind{methods: []string{method}, call: true}
		}
	}
	return m
}()

// causing are the methods that can cause anything in the agent.
var causing = func() (methods []string) {
	for i := range kata.Requests {
		for _, m := range kata.Requests[i].CausedBy {
			if !slices.Contains(methods, m) {
				methods = append(methods, m)
			}
		}
	}
	return methods
}()

// Span is a span whose cause is asked for.
type Span struct {
	*span.Span
	// Came is when it arrived, in Unix nanoseconds.
	Came int64

	kind   *kind // nil: its name says nothing
	guest  bool  // its times are by the guest's clock
	served *call // what it is the serving of, once that was looked for
}

// AgentSpan returns a span of the agent's to ask for.
func AgentSpan(s *span.Span) Span { return Span{Span: s, kind: agentKinds[s.Name], guest: true} }

// RuntimeSpan returns a span of the runtime's to ask for.
func RuntimeSpan(s *span.Span) Span {
	k := callKinds[kata.TaskMethod(s.Method)]
	if kata.IsRuntimeRoot(s.Name) {
		k = lifeLong
	}
	return Span{Span: s, kind: k}
}

// IsRequest reports whether the span serves a request: one to the agent, or a call of
// the shim as the runtime has it.
func (s *Span) IsRequest() bool { return s.kind != nil && !s.kind.life }

// IsCall reports whether the span is a call of the shim as the runtime serves it.
func (s *Span) IsCall() bool { return s.kind != nil && s.kind.call }

// IsLifeLong reports whether the span lasts as long as who made it.
func (s *Span) IsLifeLong() bool { return s.kind != nil && s.kind.life }

// IsThread reports whether the span serves nothing: if it has no parent, it was made on a
// thread of its own.
func (s *Span) IsThread() bool { return s.kind == nil }

// serves reports whether the span serves a request to the agent of that name.
func (s *Span) serves(request string) bool { return s.kind != nil && s.kind.request == request }

// asks returns the request to the agent that a span of the runtime's is.
func (s *Span) asks() (request string, ok bool) {
	if s.guest {
		return "", false
	}
	return strings.CutPrefix(s.Name, kata.RequestPrefix)
}

// times are the span's own.
func (s *Span) times() Period { return Period{clamped(s.Start), clamped(s.End)} }
