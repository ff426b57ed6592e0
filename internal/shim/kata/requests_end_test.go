package kata

import (
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/shimtrace/shimtrace/internal/config"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/shim/shimtest"
	"github.com/shimtrace/shimtrace/middleware"
)

// TestConnectionEnded: the end of the connection to the agent is in the trace, with who
// ended it, after which request; a failure only if answers are missing.
func TestConnectionEnded(t *testing.T) {
	c := newChain(t, config.Default().Trace, false, runtimeAsks)
	c.call("Create", "c1")
	c.call("Start", "c1")
	c.runtime.Close()
	shimtest.Eventually(t, "the end", func() bool { return len(c.named(names.ConnectionEnded)) > 0 })
	c.stop()
	ends := c.named(names.ConnectionEnded)
	if len(ends) != 1 {
		t.Fatalf("%d ends of one connection", len(ends))
	}
	s := ends[0]
	shimtest.Want(t, s.Attributes(), "shimtrace.agent.connection.ended_by=runtime", "shimtrace.agent.connection.requests=3",
		"shimtrace.agent.connection.unanswered=0", "shimtrace.agent.connection.last_request=grpc.AgentService/StartContainer")
	if s.Status().Code != codes.Unset || s.StartTime() != s.EndTime() || len(s.Events()) != 1 {
		t.Errorf("status %v, from %v to %v, events %v", s.Status(), s.StartTime(), s.EndTime(), s.Events())
	}
	if s.Parent().SpanID() != c.Root().SpanID() || s.SpanKind() != trace.SpanKindInternal {
		t.Errorf("under %v", s.Parent())
	}
}

func TestConnectionEndedByAgent(t *testing.T) {
	c := newChain(t, config.Default().Trace, false, nil)
	c.kata.injector.requests.connectionEnded(middleware.End{By: middleware.Server, Requests: 9, Last: "grpc.AgentService/ExecProcess", Unanswered: 1})
	c.stop()
	for _, s := range c.named(names.ConnectionEnded) {
		if s.Status().Code == codes.Error {
			shimtest.Want(t, s.Attributes(), "shimtrace.agent.connection.ended_by=agent", "shimtrace.agent.connection.requests=9",
				"shimtrace.agent.connection.unanswered=1", "shimtrace.agent.connection.last_request=grpc.AgentService/ExecProcess", "error.type=connection_closed")
			return
		}
	}
	t.Error("no failure is recorded")
}
