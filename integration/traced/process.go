package traced

import (
	"path/filepath"
	"slices"

	"github.com/shimtrace/shimtrace/integration/rig"
)

// A Kind is what a process of shimtrace is there for: the command in its arguments.
type Kind string

// The kinds of processes that live longer than a call.
const (
	Relay   Kind = "relay"
	Guard   Kind = "guard"
	Collect Kind = "collect"
)

// programs has the commands that make a process one of a kind, and of whose program.
var programs = map[Kind]struct {
	tool     bool // the operator's, not the shim
	commands []string
}{
	Relay:   {false, []string{"relay"}},
	Guard:   {false, []string{"guard"}},
	Collect: {true, []string{"collect", "ship", "receive"}},
}

// Is reports whether a process is of the kind.
func (k Kind) Is(p rig.Process) bool {
	want := programs[k]
	tool := filepath.Base(p.Args[0]) == "shimtrace"
	return tool == want.tool && slices.ContainsFunc(p.Args[1:], func(a string) bool { return slices.Contains(want.commands, a) })
}

// ShimsEnded reports whether all shims of a rig have ended; the guard does last.
func ShimsEnded(r *rig.Rig) bool { return len(r.Shims()) == len(Find(r, Guard)) }

// Find returns the living processes of a kind in a rig.
func Find(r *rig.Rig, kind Kind) []rig.Process {
	return slices.DeleteFunc(r.Processes(), func(p rig.Process) bool { return !kind.Is(p) })
}
