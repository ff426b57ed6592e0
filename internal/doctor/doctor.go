package doctor

import (
	"context"

	"github.com/shimtrace/shimtrace/internal/host"
)

// Level is how much a finding matters.
type Level string

const (
	OK      Level = "ok"
	Note    Level = "note"    // worth knowing
	Warning Level = "warning" // something is not traced, or may not be soon
	Error   Level = "error"   // tracing does not work, or a container may suffer
)

// Finding is what a check has found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	// What is the case; Where it was found, a file, a process or an address; Do is what
	// to do about it.
	What  string `json:"what"`
	Where string `json:"where,omitempty"`
	Do    string `json:"do,omitempty"`
}

// Options say which host to look at.
type Options struct {
	// Root is the directory below which files are looked for. With another root than "/",
	// no program is run and no process is asked.
	Root string
	// Proc is the proc file system of the host.
	Proc host.Proc
	// Getenv reads the environment.
	Getenv func(string) string
	// Tool is this program, links resolved.
	Tool string
	// Send says to send a test span to the collector.
	Send bool
}

// check is one of the checks; its findings get its name.
type check struct {
	name string
	run  func(context.Context, *site) []Finding
}

// checks in the order of a call's way: from containerd to the collector.
var checks = []check{
	{"containerd", containerds},
	{"handlers", handlers},
	{"links", links},
	{"inner shims", inners},
	{"configuration", configuration},
	{"journal", journals},
	{"processes", processes},
	{"relays", staleRelays},
	{"versions", versions},
	{"ports", ports},
	{"collector", collector},
	{"kata", katas},
	{"kernel", kernel},
	{"clock", clock},
}

// Run makes all checks and calls tell with each finding, in their order. begin is called
// before each check with its name, for a person who waits.
func Run(ctx context.Context, o Options, begin func(check string), tell func(Finding) error) error {
	s := newSite(o)
	for _, c := range checks {
		begin(c.name)
		for _, f := range c.run(ctx, s) {
			f.Check = c.name
			if err := tell(f); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
