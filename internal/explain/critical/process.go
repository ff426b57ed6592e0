package critical

import (
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Program returns the program of a helper's span, "" for any other span.
func Program(n *waterfall.Node) string {
	if n.Maker() != waterfall.ByShim || n.Span == nil {
		return ""
	}
	return n.Span.Attr(names.Executable)
}

// Roles of a helper.
const (
	roleRuntime = "oci_runtime"
	roleHook    = "hook"
	roleVMM     = "vmm"
)

// IsOCIRuntime reports whether the span is an OCI runtime's.
func IsOCIRuntime(n *waterfall.Node) bool {
	return Program(n) != "" && n.Span.Attr(names.ProcessRole) == roleRuntime
}

// IsHook reports whether the span is an OCI hook's.
func IsHook(n *waterfall.Node) bool {
	return Program(n) != "" && n.Span.Attr(names.ProcessRole) == roleHook
}

// processLayer returns the layer of a helper.
func (s *Start) processLayer(n *waterfall.Node) Layer {
	switch n.Span.Attr(names.ProcessRole) {
	case roleRuntime:
		return Runc
	case roleHook:
		return Hook
	case roleVMM:
		return VMM
	}
	if s.VM {
		return Runtime // virtiofsd, nsenter: the runtime's helpers
	}
	return Shim
}
