package calls

import "github.com/shimtrace/shimtrace/internal/kata"

// A span of the agent's says which container and which exec it is about. The guest could
// name those of another sandbox, so that only ids count that the host has heard of: the
// sandbox's own, and those of calls that create a container or an exec.

// process names a container, or an exec in it.
type process struct{ container, exec string }

// maxProcesses bounds the containers and execs remembered.
const maxProcesses = 4096

// create remembers what a call or a request is about, if that is to be created by it.
func (c *Calls) create(told *Call) {
	switch told.Method {
	case "Create", kata.CreateContainer:
		c.created.Put(process{container: told.ContainerID}, struct{}{})
	case "Exec", kata.ExecProcess:
		c.created.Put(process{told.ContainerID, told.ExecID}, struct{}{})
	}
}

// markClaims marks which of a span's ids nobody but the guest says are this sandbox's.
func (c *Calls) markClaims(s *Span) {
	if !s.guest {
		return
	}
	s.ContainerClaimed = s.ContainerID != "" && s.ContainerID != c.opts.Sandbox && !c.created.Has(process{container: s.ContainerID})
	s.ExecClaimed = s.ExecID != "" && (s.ContainerClaimed || !c.created.Has(process{s.ContainerID, s.ExecID}))
}
