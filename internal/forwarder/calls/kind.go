package calls

import (
	"math"
	"slices"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// Span is a span whose cause is asked for, with what its name says about it.
type Span struct {
	*span.Span
	// Came is its arrival, in Unix nanoseconds.
	Came int64

	at       Period        // its own times
	guest    bool          // at is on the guest's clock
	request  *kata.Request // the request to the agent that it serves; nil: none
	method   string        // the shim's call that it serves; empty: none
	lifeLong bool          // it lasts as long as the process that made it
	served   *call         // the call of method, once looked for
}

// requests are the requests to the agent by the names of the spans that serve them.
var requests = func() map[string]*kata.Request {
	m := make(map[string]*kata.Request, len(kata.Requests))
	for i := range kata.Requests {
		m[kata.Requests[i].Span] = &kata.Requests[i]
	}
	return m
}()

// causing are the methods that can cause something in the agent.
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

// AgentSpan returns the agent's span s to ask about.
func AgentSpan(s *span.Span) Span {
	return Span{Span: s, at: timesOf(s), guest: true, request: requests[s.Name], lifeLong: isLifeLong(s.Name)}
}

// ParentOf returns the name of the agent's span that is always the parent of spans with this
// name, if the parent serves a request or is life-long; otherwise it returns "".
func ParentOf(name string) string {
	parent := kata.ParentSpan(name)
	if requests[parent] == nil && !isLifeLong(parent) {
		return ""
	}
	return parent
}

func isLifeLong(name string) bool { return slices.Contains(kata.LifeLong[:], name) }

// RuntimeSpan returns the runtime's span s to ask about.
func RuntimeSpan(s *span.Span) Span {
	of := Span{Span: s, at: timesOf(s), lifeLong: kata.IsRuntimeRoot(s.Name)}
	if method := kata.TaskMethod(s.Method); isTask[method] && !of.lifeLong {
		of.method = method
	}
	return of
}

// isTask has the methods of the task service as true.
var isTask = func() map[string]bool {
	m := make(map[string]bool, len(kata.Calls))
	for i := range kata.Calls {
		m[kata.Calls[i].Method] = !kata.Calls[i].Sandbox
	}
	return m
}()

// IsRequest reports whether the span serves a request to the agent, IsCall whether it serves a
// call of the shim.
func (s *Span) IsRequest() bool { return s.request != nil }
func (s *Span) IsCall() bool    { return s.method != "" }

// IsLifeLong reports whether the span lasts as long as the process that made it. Its children
// arrive long before it.
func (s *Span) IsLifeLong() bool { return s.lifeLong }

// IsThread reports whether the span's name says nothing about its cause. Without a parent, such
// a span was made on a thread of its own.
func (s *Span) IsThread() bool { return s.request == nil && s.method == "" && !s.lifeLong }

func timesOf(s *span.Span) Period { return Period{clamped(s.Start), clamped(s.End)} }

func clamped(t uint64) int64 { return int64(min(t, math.MaxInt64)) }
