package critical

import (
	"strings"

	"github.com/shimtrace/shimtrace/internal/kata"
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Layer is a part of the stack that time belongs to.
type Layer string

// The layers, from the caller inwards.
const (
	Caller      Layer = "caller" // kubelet, nerdctl, ctr, crictl: whoever asks containerd
	Containerd  Layer = "containerd"
	Network     Layer = "network"
	Image       Layer = "image"
	Ours        Layer = "shimtrace"
	Shim        Layer = "shim"    // the inner shim of a runtime without VMs
	Runtime     Layer = "runtime" // the inner shim of a runtime with VMs
	VMM         Layer = "VMM"
	GuestKernel Layer = "guest kernel"
	Agent       Layer = "agent"
	Runc        Layer = "runc" // or another OCI runtime
	Hook        Layer = "hook"
)

// Method returns the method of a call's or request's span, "" if the name is no
// method's: "Create" of "containerd.task.v3.Task/Create".
func Method(s *waterfall.Span) string {
	service, method, ok := strings.Cut(s.Name, "/")
	if !ok || !strings.Contains(service, ".") {
		return ""
	}
	return method
}

// IsRequest reports whether the span is a request to the agent, as the relay saw it.
func IsRequest(n *waterfall.Node) bool {
	return n.Maker() == waterfall.ByShim && strings.HasPrefix(n.Span.Name, kata.AgentService+"/")
}

// IsCall reports whether the span is a call of the shim.
func IsCall(n *waterfall.Node) bool {
	return n.Span != nil && n.Maker() == waterfall.ByShim && Method(n.Span) != "" && !IsRequest(n)
}

// layer returns whose time a span's self time is.
func (s *Start) layer(n *waterfall.Node) Layer {
	switch n.Maker() {
	case waterfall.ByAgent:
		return Agent
	case waterfall.ByRuntime:
		if strings.Contains(strings.ToLower(n.Span.Name), "network") {
			return Network
		}
		return Runtime
	case waterfall.ByShim:
		return s.shimLayer(n)
	}
	return othersLayer(n)
}

func (s *Start) shimLayer(n *waterfall.Node) Layer {
	switch {
	case IsRequest(n):
		return Agent
	case phaseLayer(n.Span.Name) != "":
		return phaseLayer(n.Span.Name)
	case n.Span.Name == names.VMBoot && len(n.Children) == 0:
		return GuestKernel
	case n.Span.Name == names.VMBoot:
		return VMM
	case n.Span.Name == names.InnerStart, n.Span.Name == names.InnerDelete, IsCall(n):
		if s.VM {
			return Runtime
		}
		return Shim
	}
	if Program(n) != "" {
		return s.processLayer(n)
	}
	return Ours
}

// othersLayer returns the layer of a span of another program of the host, by the names
// that containerd 2.4 gives its spans (client/pull.go, core/unpack/unpacker.go,
// internal/cri/server).
func othersLayer(n *waterfall.Node) Layer {
	name, service := strings.ToLower(n.Span.Name), n.Service()
	for _, word := range [...]struct {
		prefix string
		layer  Layer
	}{
		{"cni.", Network}, {"pull.", Image}, {"pkg.unpack.", Image}, {"remotes.", Image},
		{"runtime.v1.imageservice/", Image}, {"containerd.services.images.", Image}, {"containerd.services.content.", Image},
		{"containerd.services.diff.", Image}, {"containerd.services.snapshots.", Image},
	} {
		if strings.HasPrefix(name, word.prefix) {
			return word.layer
		}
	}
	switch {
	case strings.HasPrefix(service, "containerd-shim"):
		return Shim
	case strings.HasPrefix(service, "containerd"):
		return Containerd
	}
	return Caller
}
