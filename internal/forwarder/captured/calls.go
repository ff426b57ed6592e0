package captured

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/forwarder/span"
	"github.com/shimtrace/shimtrace/internal/kata"
)

func (p *Pod) each(f func(*span.Span)) {
	for _, post := range p.Runtime {
		for _, s := range post {
			f(s)
		}
	}
}

// findCalls derives the calls from the spans that serve them.
func (p *Pod) findCalls() {
	p.createSandbox()
	ids := p.agentsIDs()
	p.each(func(s *span.Span) {
		if p.Sandbox == "" {
			p.Sandbox = s.Sandbox // only the Go runtime names it
		}
		if s.Method == "" || s.Name == kata.TaskRequest {
			return
		}
		container, exec := s.ContainerID, s.ExecID
		if a := ids[s.SpanID]; a != nil && container == "" {
			container = a.ContainerID
			if a.ExecID != "" {
				// The Go runtime names execs anew towards the agent.
				exec = "exec-of-" + a.ExecID[:4]
			}
		}
		p.Of[s.SpanID] = p.add(s.Method, container, exec, s.Start, s.End)
	})
	// runtime-rs serves a call with two spans, one of which is longer.
	p.each(func(s *span.Span) {
		if s.Name != kata.TaskRequest {
			return
		}
		for i, c := range p.Calls {
			if c.Method == s.Method && c.ContainerID == s.ContainerID && c.ExecID == s.ExecID &&
				c.Start.UnixNano() <= int64(s.Start) && int64(s.End) <= c.End.UnixNano() {
				p.Of[s.SpanID] = i
			}
		}
	})
}

// createSandbox adds the Create of a sandbox under runtime-rs, which has no span for it.
func (p *Pod) createSandbox() {
	var first, last *span.Span
	p.each(func(s *span.Span) {
		switch {
		case s.Name == "sb: start" && (first == nil || s.Start < first.Start):
			first = s
		case s.Name == "create_container" && s.ParentID == [8]byte{} && last == nil:
			last = s
		}
	})
	if first == nil || last == nil {
		return
	}
	// The agent's first container is the sandbox's own.
	for _, s := range p.Agent {
		if s.Name == "create_container" {
			p.Sandbox = s.ContainerID
			break
		}
	}
	p.add("Create", p.Sandbox, "", first.Start, last.End)
}

// agentsIDs returns, for each runtime's span, an agent's span below it that has ids; the Go
// runtime's spans have none.
func (p *Pod) agentsIDs() map[[8]byte]*span.Span {
	parents, ids := make(map[[8]byte][8]byte), make(map[[8]byte]*span.Span)
	p.each(func(s *span.Span) { parents[s.SpanID] = s.ParentID })
	for _, s := range p.Agent {
		if s.ContainerID == "" {
			continue
		}
		for at := s.ParentID; at != [8]byte{}; at = parents[at] {
			if ids[at] == nil {
				ids[at] = s
			}
		}
	}
	return ids
}

func (p *Pod) add(method, container, exec string, start, end uint64) int {
	p.Calls = append(p.Calls, Call{
		Method: method, ContainerID: container, ExecID: exec,
		Start: time.Unix(0, int64(start)).Add(-margin), End: time.Unix(0, int64(end)).Add(margin),
	})
	return len(p.Calls) - 1
}
