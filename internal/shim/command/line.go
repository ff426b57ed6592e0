// Package command reads the command line with which containerd calls a shim, and with which
// start and delete call the processes that go on after them. It has the log that all of
// them write to. It knows nothing of what a command does, and is linked into both programs
// of a pod.
package command

import (
	"os"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/shim/state"
	"github.com/shimtrace/shimtrace/internal/shimname"
)

// Line is what a program was called for.
type Line struct {
	Program string   // argv[0]: it says which shim is meant
	Args    []string // as they came, for the inner shim

	Action    string // one of the constants below; "" for -info, -v and whatever else
	Namespace string
	ID        string
	Bundle    string

	Inner    string // the inner shim's path, of a relay or record
	StateDir string // of a guard
	Check    bool   // a guard is only to say which protocol it speaks
	Resume   bool   // a relay is to go on for another one
}

// Actions. containerd runs the first two in a container's bundle. The others are
// shimtrace's own, and never come from containerd.
const (
	Start  = "start"
	Delete = "delete"
	Relay  = "relay"
	Record = "record"
	Guard  = "guard"
)

// Flags of shimtrace's own.
const (
	// flagCheck may follow Guard.
	flagCheck = "-check"
	// FlagResume stands before Relay.
	FlagResume = "-resume"
	// flagInner and FlagStateDir have a value.
	flagInner    = "-inner"
	FlagStateDir = "-state-dir"
)

// Parse reads a command line as Go's flag package would, whose rules containerd's shims
// follow, but passes over flags that it does not know: they are the inner shim's business.
func Parse(argv []string) Line {
	l := Line{Program: argv[0], Args: argv[1:]}
	values := map[string]*string{
		"namespace":      &l.Namespace,
		"id":             &l.ID,
		"bundle":         &l.Bundle,
		"address":        new(string),
		"publish-binary": new(string),
		"socket":         new(string),
		flagInner[1:]:    &l.Inner,
		FlagStateDir[1:]: &l.StateDir,
	}
	for i := 0; i < len(l.Args); i++ {
		flag, isFlag := strings.CutPrefix(l.Args[i], "-")
		if !isFlag {
			if slices.Contains([]string{Start, Delete, Relay, Record, Guard}, l.Args[i]) {
				l.Action = l.Args[i]
			}
			l.Check = slices.Contains(l.Args[i:], flagCheck)
			break
		}
		l.Resume = l.Resume || l.Args[i] == FlagResume
		name, value, joined := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		dst := values[name]
		switch {
		case dst == nil:
		case joined:
			*dst = value
		case i+1 < len(l.Args):
			i++
			*dst = l.Args[i]
		}
	}
	if l.Bundle == "" {
		// containerd runs start in the bundle, and says so by nothing else.
		l.Bundle, _ = os.Getwd()
	}
	return l
}

// Of returns the command line of a process that goes on for the container after the
// command. The name and arguments are for those who read a process list.
func (l Line) Of(rest ...string) []string {
	line := []string{l.Program, "-namespace", l.Namespace, "-id", l.ID, "-bundle", l.Bundle}
	if l.Inner != "" {
		line = append(line, flagInner, l.Inner)
	}
	return append(line, rest...)
}

// Wrapped returns the shim that the program's name means: that of a link of ours, or a real
// shim's own name, in whose place we are on containerd's PATH.
func (l Line) Wrapped() shimname.Name {
	name, ok := shimname.ParseLink(l.Program)
	if !ok {
		name, _ = shimname.Parse(l.Program)
	}
	return name
}

// Identity returns the identity of the sandbox that the command is about, whose container
// has the annotations.
func (l Line) Identity(notes state.Annotations) state.Identity {
	name, _ := shimname.ParseLink(l.Program)
	return state.Identity{
		Sandbox: notes.SandboxID(l.ID), Namespace: l.Namespace, Inner: l.Inner, Runtime: name.Inner, Notes: notes,
	}
}
