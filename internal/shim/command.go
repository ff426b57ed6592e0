package shim

import (
	"os"
	"slices"
	"strings"

	"github.com/shimtrace/shimtrace/internal/shim/telemetry"
)

// command is what containerd, or our own start, called the program for.
type command struct {
	program string   // argv[0]: it says which shim is meant
	args    []string // as they came, for the inner shim

	action    string // "start", "delete", one of our own; "" for -info, -v and whatever else
	namespace string
	id        string
	bundle    string

	stateDir string // of a guard
	check    bool   // a guard is only to say which protocol it speaks
	resume   bool   // a relay is to go on for another one
}

// bundleActions are the actions that containerd runs in a container's bundle.
const (
	actionStart  = "start"
	actionDelete = "delete"
	actionRelay  = "relay"  // our own: never comes from containerd
	actionRecord = "record" // likewise
	actionGuard  = "guard"  // likewise

	// flagCheck may follow actionGuard.
	flagCheck = "-check"
	// flagResume stands before actionRelay.
	flagResume = "-resume"
)

// parseCommand reads the command line as Go's flag package would, whose rules
// containerd's shims follow, but takes flags that it does not know for granted:
// they are the inner shim's business.
func parseCommand(argv []string) command {
	c := command{program: argv[0], args: argv[1:]}
	values := map[string]*string{
		"namespace":      &c.namespace,
		"id":             &c.id,
		"bundle":         &c.bundle,
		"address":        new(string),
		"publish-binary": new(string),
		"socket":         new(string),
		"state-dir":      &c.stateDir,
	}
	for i := 0; i < len(c.args); i++ {
		flag, isFlag := strings.CutPrefix(c.args[i], "-")
		if !isFlag {
			if slices.Contains([]string{actionStart, actionDelete, actionRelay, actionRecord, actionGuard}, c.args[i]) {
				c.action = c.args[i]
			}
			c.check = slices.Contains(c.args[i:], flagCheck)
			break
		}
		c.resume = c.resume || c.args[i] == flagResume
		name, value, joined := strings.Cut(strings.TrimPrefix(flag, "-"), "=")
		dst := values[name]
		switch {
		case dst == nil:
		case joined:
			*dst = value
		case i+1 < len(c.args):
			i++
			*dst = c.args[i]
		}
	}
	if c.bundle == "" {
		// containerd runs start in the bundle, and says so by nothing else.
		c.bundle, _ = os.Getwd()
	}
	return c
}

// identity returns the identity of the sandbox that the command is about.
func (c command) identity(inner string) telemetry.Identity {
	return telemetry.Identify(c.program, c.namespace, c.id, c.bundle, inner)
}
