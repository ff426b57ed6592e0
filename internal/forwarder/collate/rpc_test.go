package collate

import (
	"strings"
	"testing"

	"github.com/shimtrace/shimtrace/internal/forwarder/calls"
	"github.com/shimtrace/shimtrace/internal/forwarder/captured"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// TestCapturedRequests checks the facts about requests and calls against the captured pods:
// every request of the runtime is known, and the agent's span below it has the name that
// belongs to it.
func TestCapturedRequests(t *testing.T) {
	requests, serving, methods := map[string]bool{}, 0, map[string]bool{}
	for _, name := range []string{captured.Go, captured.Rust} {
		p := captured.Load(t, name)
		asked := make(map[[8]byte]string)
		each := func(s *span.Span) {
			request, ok := strings.CutPrefix(s.Name, kata.RequestPrefix)
			if !ok {
				return
			}
			requests[request], asked[s.SpanID] = true, request
			if kata.RequestNamed(request) == nil {
				t.Errorf("%s: request %s is not known", name, request)
			}
		}
		for _, post := range p.Runtime {
			for _, s := range post {
				each(s)
			}
		}
		for _, s := range p.Agent {
			if request := asked[s.ParentID]; request != "" {
				serving++
				if r := kata.RequestNamed(request); r != nil && r.Span != s.Name {
					t.Errorf("%s: below request %s is %s, want %s", name, request, s.Name, r.Span)
				}
			}
			if !isKnown(s.Name) && s.ParentID == [8]byte{} && s.Name != "baremount" && s.Name != "get_current_thread_ns_path" {
				t.Errorf("%s: the agent's root %s is not known", name, s.Name)
			}
		}
		for _, c := range p.Calls {
			methods[c.Method] = true
			if !isCall(c.Method) {
				t.Errorf("%s: call %s is not known", name, c.Method)
			}
		}
	}
	if len(requests) < 10 || serving < 50 || len(methods) < 8 {
		t.Errorf("the captures have %d requests, %d spans that serve them, %d methods", len(requests), serving, len(methods))
	}
}

func isCall(method string) bool {
	s := calls.RuntimeSpan(&span.Span{Method: method})
	return s.IsCall()
}
