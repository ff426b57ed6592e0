// Package kata has the facts about Kata's agent and runtimes as data: each once, with
// its source, for Kata 2.5 to 4.1.
//
// It decides nothing and imports only the standard library. Its tables are arrays,
// which cost nothing when a program starts; a package with lookups for each span builds
// its own map.
//
// Sources are paths in the repository kata-containers.
package kata

import (
	"path/filepath"
	"strings"
)

// The agent's ttrpc services (src/libs/protocols/protos: agent.proto, health.proto).
const (
	AgentService  = "grpc.AgentService"
	healthService = "grpc.Health"
)

// AgentPort is the VSOCK port of the agent's services (src/agent/src/config.rs,
// VSOCK_PORT; src/runtime/virtcontainers/hypervisor.go, vSockPort).
const AgentPort = 1024

// SpanPort is the host's VSOCK port to which the agent sends its spans
// (src/agent/src/config.rs and src/agent/vsock-exporter).
const SpanPort = 10240

// IsShim reports whether the path or name of a shim is Kata's:
// "containerd-shim-kata-v2", "containerd-shim-kata-qemu-v2".
func IsShim(inner string) bool { return strings.Contains(filepath.Base(inner), "kata") }

// ExecID returns the exec of a request, empty for a container's first process, to which
// the Go runtime gives the container's id (src/runtime/virtcontainers/kata_agent.go,
// ExecId: c.id).
func ExecID(container, exec string) string {
	if exec == container {
		return ""
	}
	return exec
}

// Waits reports whether the named call of the shim or request to the agent lasts as
// long as what it waits for, so that it is never slow.
func Waits(name string) bool {
	for i := range Calls {
		if Calls[i].Method == name {
			return Calls[i].Waits
		}
	}
	r := RequestNamed(name)
	return r != nil && r.Waits
}
