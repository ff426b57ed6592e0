package kata

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/names"
)

// runtimeAsks is some of what Kata's runtime asks its agent.
var runtimeAsks = map[string][]string{
	"Create": {"CreateSandbox", "CreateContainer c1"},
	"Start":  {"StartContainer c1"},
	"Kill":   {"SignalProcess bad"},
}

// TestRequests: each request is a client span under the call that caused it, and what
// the agent gets is that span's context.
func TestRequests(t *testing.T) {
	c := newChain(t, config.Default().Trace, false, runtimeAsks)
	c.call("Create", "c1")
	c.call("Start", "c1")
	c.call("Kill", "bad")
	// One that no call causes.
	c.runtime.Call(t.Context(), requestService, "WaitProcess", about("c1"), about(""))
	c.stop()
	for request, call := range map[string]string{
		"CreateSandbox": "Create", "CreateContainer": "Create", "StartContainer": "Start", "SignalProcess": "Kill",
	} {
		s, parent := c.one(request), c.one(call)
		if s.Name() != requestService+"/"+request || s.SpanKind() != trace.SpanKindClient {
			t.Errorf("span %s, %v", s.Name(), s.SpanKind())
		}
		if s.Parent().SpanID() != parent.SpanContext().SpanID() || s.SpanContext().TraceID() != c.Root().TraceID() {
			t.Errorf("%s is under %v, want %s", request, s.Parent().SpanID(), call)
		}
	}
	for ask, seen := range c.seen {
		method, _, _ := strings.Cut(ask, " ")
		if method == "WaitProcess" {
			if seen.IsSampled() || seen.TraceID() != c.Root().TraceID() {
				t.Errorf("the agent saw %v with the quiet %s", seen, method)
			}
			continue
		}
		if s := c.one(method); !seen.Equal(s.SpanContext().WithRemote(true)) {
			t.Errorf("the agent saw %v with %s, want %v", seen, method, s.SpanContext())
		}
	}
	if s := c.one("SignalProcess").Status(); s.Code != codes.Error || s.Description != "no such container" {
		t.Errorf("the failure shows as %v", s)
	}
	if n := len(c.named("WaitProcess")); n > 0 {
		t.Errorf("%d spans of WaitProcess, which is quiet", n)
	}
}

// TestRequestsCarryIDsOnly: of what the caller sends along, a guest gets nothing but the
// ids, also if the caller's trace is the one that goes on.
func TestRequestsCarryIDsOnly(t *testing.T) {
	caller := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{0xca, 1}, SpanID: trace.SpanID{0xca, 2}, TraceFlags: trace.FlagsSampled})
	for _, from := range []string{"caller", "runtime"} {
		c := newChain(t, config.Default().Trace, false, runtimeAsks)
		md := traceparent(caller)
		md.Set("tracestate", "vendor=hunter2")
		md.Set("baggage", "user=hunter2")
		if from == "caller" {
			c.caller = md
		} else {
			delete(md, "baggage") // the runtime's own; it has none of its caller's
			c.send = md
		}
		c.call("Create", "c1")
		c.stop()
		if from == "caller" && c.one("Create").SpanContext().TraceState().Len() != 1 {
			t.Error("the call does not have the caller's state, which was not to go on")
		}
		for ask, seen := range c.seen {
			if !seen.IsValid() || seen.TraceState().Len() > 0 {
				t.Errorf("%s: the agent saw %v", ask, seen)
			}
		}
		if len(c.seen) != 2 || !slices.Equal(c.keys, []string{"traceparent"}) {
			t.Errorf("%s: the agent saw %q in %d requests", from, c.keys, len(c.seen))
		}
	}
}

// TestRequestsOfQuietCalls: they are quiet as well; but one that is of note is recorded,
// and the call above it, which has been answered perhaps.
func TestRequestsOfQuietCalls(t *testing.T) {
	for container, recorded := range map[string]bool{"c1": false, "bad": true, "slow": true} {
		t.Run(container, func(t *testing.T) {
			cfg := config.Default().Trace
			cfg.Slow = config.Duration(time.Hour)
			if container == "slow" {
				cfg.Slow = config.Duration(time.Millisecond)
			}
			c := newChain(t, cfg, false, map[string][]string{"Stats": {"StatsContainer " + container}})
			c.call("Stats", container)
			c.stop()
			if seen := c.seen["StatsContainer "+container]; seen.IsSampled() || seen.TraceID() != c.Root().TraceID() {
				t.Errorf("the agent saw %v", seen)
			}
			if !recorded {
				if n := len(c.spans.Ended()) - len(c.named(names.ConnectionEnded)); n > 0 {
					t.Errorf("%d spans, want none", n)
				}
				return
			}
			if s, call := c.one("StatsContainer"), c.one("Stats"); s.Parent().SpanID() != call.SpanContext().SpanID() {
				t.Errorf("it is under %v, want %v", s.Parent().SpanID(), call.SpanContext().SpanID())
			}
		})
	}
}

// TestRequestsIsolated: requests have their spans, but the agent hears of no context
// but the runtime's.
func TestRequestsIsolated(t *testing.T) {
	c := newChain(t, config.Default().Trace, true, runtimeAsks)
	c.call("Create", "c1")
	c.send = traceparent(foreign)
	c.call("Start", "c1")
	c.stop()
	if seen := c.seen["CreateContainer c1"]; seen.IsValid() {
		t.Errorf("the agent saw %v", seen)
	}
	if seen := c.seen["StartContainer c1"]; !seen.Equal(foreign) {
		t.Errorf("the agent saw %v, want %v", seen, foreign)
	}
	if s := c.one("CreateContainer"); s.Parent().SpanID() != c.one("Create").SpanContext().SpanID() {
		t.Errorf("CreateContainer is under %v", s.Parent())
	}
	s := c.one("StartContainer")
	if s.Parent().SpanID() != c.one("Start").SpanContext().SpanID() || len(s.Links()) != 1 || !s.Links()[0].SpanContext.Equal(foreign) {
		t.Errorf("StartContainer is under %v, linked to %v", s.Parent(), s.Links())
	}
}

// TestRequestsOfATracingRuntime: where we record nothing, the runtime's trace stays
// whole; where we do, the request is ours and linked to it.
func TestRequestsOfATracingRuntime(t *testing.T) {
	for sampler, ours := range map[string]bool{"always_on": true, "parentbased_always_off": false} {
		t.Run(sampler, func(t *testing.T) {
			cfg := config.Default().Trace
			cfg.Sampler = sampler
			c := newChain(t, cfg, false, runtimeAsks)
			c.send = traceparent(foreign)
			c.call("Start", "c1")
			c.stop()
			seen, s := c.seen["StartContainer c1"], c.one("StartContainer")
			if !seen.Equal(s.SpanContext().WithRemote(true)) {
				t.Errorf("the agent saw %v, want %v", seen, s.SpanContext())
			}
			linked := slices.ContainsFunc(s.Links(), func(l sdktrace.Link) bool { return l.SpanContext.Equal(foreign) })
			if inOurs := s.SpanContext().TraceID() == c.Root().TraceID(); inOurs != ours || linked != ours {
				t.Errorf("it is in our trace: %t, linked: %t; want %t", inOurs, linked, ours)
			}
		})
	}
}

// TestRequestsOfAnOldContext: a runtime that has stopped tracing goes on to name what it
// did last. Its spans are in our trace by then: a link to where they were leads nowhere.
func TestRequestsOfAnOldContext(t *testing.T) {
	c := newChain(t, config.Default().Trace, false, runtimeAsks)
	old := &span.Span{Method: "Start", TraceID: foreign.TraceID(), SpanID: foreign.SpanID(), Name: "Start"}
	old.Start, old.End = uint64(time.Now().UnixNano()), uint64(time.Now().UnixNano())
	c.kata.own.AddRuntime(old)
	c.send = traceparent(foreign)
	c.call("Start", "c1")
	c.stop()
	s := c.one("StartContainer")
	if s.Parent().SpanID() != c.one("Start").SpanContext().SpanID() || len(s.Links()) != 0 {
		t.Errorf("StartContainer is under %v, linked to %v", s.Parent(), s.Links())
	}
}

// foreign is a context of a runtime that traces by itself.
var foreign = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1: 7}, SpanID: trace.SpanID{1: 8}, TraceFlags: trace.FlagsSampled, Remote: true})
