package collate

import (
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

// A span of the agent's says which container and which exec it is about. The guest could
// name those of another sandbox, so that only ids count that the host has heard of: the
// sandbox's own, and those of calls that create a container or an exec. Others are kept
// by another name.
const (
	containerIDKey = "container.id"
	execIDKey      = "shimtrace.exec.id"

	// ClaimedContainerIDKey and ClaimedExecIDKey are what the guest says without proof.
	// The Go runtime gives execs names of its own, which are among them unless its
	// requests are relayed.
	ClaimedContainerIDKey = "shimtrace.claimed.container.id"
	ClaimedExecIDKey      = "shimtrace.claimed.exec.id"
)

// process names a container, or an exec in it.
type process struct{ container, exec string }

// maxProcesses bounds the containers and execs remembered.
const maxProcesses = 4096

// create remembers what a call or a request is about, if that is to be created by it.
func (cs *calls) create(c *Call) {
	switch c.Method {
	case "Create", kata.CreateContainer:
		cs.created.put(process{container: c.ContainerID}, struct{}{})
	case "Exec", kata.ExecProcess:
		cs.created.put(process{c.ContainerID, c.ExecID}, struct{}{})
	}
}

func (cs *calls) exists(p process) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	_, ok := cs.created.get(p)
	return ok
}

// markClaims renames the ids of a span that are not known to be this sandbox's.
func (c *Collator) markClaims(s *span.Span, m *tracepb.Span) {
	container := s.ContainerID == "" || s.ContainerID == c.opts.Sandbox || c.calls.exists(process{container: s.ContainerID})
	exec := s.ExecID == "" || container && c.calls.exists(process{s.ContainerID, s.ExecID})
	for _, kv := range m.Attributes {
		switch {
		case kv.Key == containerIDKey && !container:
			kv.Key = ClaimedContainerIDKey
		case kv.Key == execIDKey && !exec:
			kv.Key = ClaimedExecIDKey
		}
	}
}
