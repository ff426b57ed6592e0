package status

import (
	"time"

	"github.com/shimtrace/shimtrace/internal/export/journal"
	"github.com/shimtrace/shimtrace/internal/relays"
)

// Picture is a host at one moment. What is not known is nil.
type Picture struct {
	Time time.Time `json:"time"`
	// Relays are those that were asked for; Nothing says why there are none.
	Relays  []relays.Report `json:"relays"`
	Nothing string          `json:"no_relays,omitempty"`
	Guard   *Guard          `json:"guard,omitempty"`
	Collect *Collect        `json:"collect,omitempty"`
	// Journals are those of all configurations, the common one first.
	Journals []Journal `json:"journals,omitempty"`
	// Silent are those that have not answered in time, besides relays, which say so
	// themselves.
	Silent []string `json:"silent,omitempty"`

	nothing error // Nothing, with its exit code
}

// Guard is the host's guard.
type Guard struct {
	// Error says why there is none, or it does not answer.
	Error   string `json:"error,omitempty"`
	PID     int    `json:"pid,omitempty"`
	Build   string `json:"build,omitempty"`
	Relays  int    `json:"relays"`
	Guarded int    `json:"guarded"`
	// Resumed is how often another process has gone on for one of these relays.
	Resumed int `json:"resumed"`
	// Unrecorded says why the processes below inner shims are not recorded; empty if they are.
	Unrecorded string `json:"processes_unrecorded,omitempty"`

	byRelay map[string]bool // whether a relay is guarded, by the relay's socket
}

// Collect is the collecting process.
type Collect struct {
	// State is "answers", "silent" or "absent".
	State string `json:"state"`
}

// Journal is a journal and what was shipped of it.
type Journal struct {
	Dir   string `json:"dir"`
	Error string `json:"error,omitempty"`
	Bytes int64  `json:"bytes"`
	Max   int64  `json:"max_bytes"`
	// Segments are its files; Damaged bytes in them are passed over.
	Segments int   `json:"segments"`
	Damaged  int64 `json:"damaged_bytes,omitempty"`
	// Spans counts those of shimtrace, agents and runtimes, Posted those of other programs.
	Spans  int `json:"spans"`
	Posted int `json:"posted_spans"`
	// Lost counts spans by reason, as shimtrace list does.
	Lost   map[string]int `json:"lost"`
	Shares []Share        `json:"shares"` // the largest first
	// Targets are where it is shipped to.
	Targets []Target `json:"targets,omitempty"`
}

// Share is one sandbox's part of a journal.
type Share struct {
	// Of is the sandbox's name, empty if it does not run here any more or is no sandbox.
	Of    string `json:"of,omitempty"`
	Bytes int64  `json:"bytes"`

	source journal.Source
}

// Target is where a journal is shipped to.
type Target struct {
	Name     string `json:"name,omitempty"`
	Endpoint string `json:"endpoint"` // without what is secret in it
	Protocol string `json:"protocol"`
	// Waiting spans are in the journal, and the target is still to get them: not read yet,
	// held until it is decided whether they are shipped, or set aside. Aside are these last,
	// which it fails on while it takes others.
	Waiting int `json:"waiting"`
	Aside   int `json:"aside,omitempty"`
	// Since is when counting began; zero: nothing was shipped yet.
	Since    time.Time         `json:"since,omitzero"`
	Shipped  uint64            `json:"shipped"`
	Rejected map[string]uint64 `json:"rejected,omitempty"`
	KeptOut  uint64            `json:"kept_out,omitempty"`
	Error    string            `json:"error,omitempty"`
}
