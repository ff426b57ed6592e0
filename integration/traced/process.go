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

// Find returns the living processes of a kind in a rig.
func Find(r *rig.Rig, kind Kind) (found []rig.Process) {
	want := programs[kind]
	for _, p := range r.Processes() {
		tool := filepath.Base(p.Args[0]) == "shimtrace"
		if tool == want.tool && slices.ContainsFunc(p.Args[1:], func(a string) bool { return slices.Contains(want.commands, a) }) {
			found = append(found, p)
		}
	}
	return found
}
