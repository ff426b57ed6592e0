package critical

import (
	"strings"

	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Names that the spans of processes have.
const (
	programExecuted = "program executed"
	vmBoot          = "VM boot"
	vmmStart        = "VMM start"
	guestBoot       = "guest boot"
	agentConnect    = "agent connect"

	executable = "process.executable.name"
)

// Program returns the program of a helper's span, "" for any other span.
func Program(n *waterfall.Node) string {
	if n.Maker() != waterfall.ByShim || n.Span == nil {
		return ""
	}
	return n.Span.Attr(executable)
}

// ociRuntimes are the programs that shims run as OCI runtimes (containerd's
// runtime-options BinaryName: runc by default).
var ociRuntimes = [...]string{"runc", "crun", "youki", "kata-runtime", "runsc"}

// vmms are the programs that Kata's runtimes start as hypervisors
// (src/runtime/pkg/katautils/config-settings.go.in).
var vmms = [...]string{"qemu-", "cloud-hypervisor", "firecracker", "stratovirt", "openvmm"}

func isOCIRuntime(program string) bool {
	for _, name := range ociRuntimes {
		if program == name {
			return true
		}
	}
	return false
}

// IsHook reports whether the span is an OCI hook's: a program that an OCI runtime ran.
func IsHook(n *waterfall.Node) bool {
	program := Program(n)
	if program == "" || isOCIRuntime(program) || n.Parent() == nil {
		return false
	}
	up := Program(n.Parent())
	return isOCIRuntime(up) || up != "" && IsHook(n.Parent())
}

// processLayer returns the layer of a helper.
func (s *Start) processLayer(n *waterfall.Node, program string) Layer {
	switch {
	case isOCIRuntime(program):
		return Runc
	case IsHook(n):
		return Hook
	}
	for _, prefix := range vmms {
		if strings.HasPrefix(program, prefix) {
			return VMM
		}
	}
	if s.VM {
		return Runtime // virtiofsd, nsenter: the runtime's helpers
	}
	return Shim
}
