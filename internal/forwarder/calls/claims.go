package calls

import "github.com/shimtrace/shimtrace/internal/kata"

// An agent's span says which container and exec it is about. The guest could name those of
// another sandbox, so the host accepts only ids that it knows: the sandbox's own, and those of
// calls that create a container or an exec.

// process names a container, or an exec in it.
type process struct{ container, exec string }

// maxProcesses bounds the remembered containers and execs.
const maxProcesses = 4096

// create remembers the container or exec that a call or request creates.
func (c *Calls) create(told *Call) {
	switch told.Method {
	case "Create", kata.CreateContainer:
		c.created.Put(process{container: told.ContainerID}, struct{}{})
	case "Exec", kata.ExecProcess:
		c.created.Put(process{told.ContainerID, told.ExecID}, struct{}{})
	}
}

// markClaims marks a span's ids that only the guest claims to be this sandbox's.
func (c *Calls) markClaims(s *Span) {
	if !s.guest {
		return
	}
	s.ContainerClaimed = s.ContainerID != "" && s.ContainerID != c.opts.Sandbox && !c.created.Has(process{container: s.ContainerID})
	s.ExecClaimed = s.ExecID != "" && (s.ContainerClaimed || !c.created.Has(process{s.ContainerID, s.ExecID}))
}
