package critical

import (
	"github.com/shimtrace/shimtrace/internal/names"
	"github.com/shimtrace/shimtrace/internal/procevents"
	"github.com/shimtrace/shimtrace/internal/waterfall"
)

// Program returns the program of a helper's span, "" for any other span.
func Program(n *waterfall.Node) string {
	if n.Maker() != waterfall.ByShim || n.Span == nil {
		return ""
	}
	return n.Span.Attr(names.Executable)
}

// role returns what a helper is.
func role(n *waterfall.Node) procevents.Role { return procevents.Role(n.Span.Attr(names.ProcessRole)) }

// IsOCIRuntime reports whether the span is an OCI runtime's.
func IsOCIRuntime(n *waterfall.Node) bool {
	return Program(n) != "" && role(n) == procevents.OCIRuntime
}

// IsHook reports whether the span is an OCI hook's.
func IsHook(n *waterfall.Node) bool {
	return Program(n) != "" && role(n) == procevents.Hook
}

// processLayer returns the layer of a helper.
func (s *Start) processLayer(n *waterfall.Node) Layer {
	switch role(n) {
	case procevents.OCIRuntime:
		return Runc
	case procevents.Hook:
		return Hook
	case procevents.VMM:
		return VMM
	}
	if s.VM {
		return Runtime // virtiofsd, nsenter: the runtime's helpers
	}
	return Shim
}
