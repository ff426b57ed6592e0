package control

import "time"

// version is that of requests and answers. A relay keeps the one that it was built
// with for as long as its sandbox lives.
const version = 1

// What a relay can be asked to do.
const (
	DoStatus = "status" // say what is traced
	DoOn     = "on"     // switch tracing on, or on for longer or shorter
	DoOff    = "off"    // switch it off
)

// Request is what a relay is asked. Version is filled in by Ask.
type Request struct {
	Version int    `json:"version"`
	Do      string `json:"do"`
	// For is how long tracing stays on, from now; 0: until it is switched off.
	For time.Duration `json:"for_ns,omitempty"`
	// By names who asks, for those who read the trace; at most MaxBy bytes.
	By string `json:"by,omitempty"`
}

// MaxBy bounds Request.By.
const MaxBy = 64

// Answer is what a relay says: its sandbox and whether that is traced, once it has
// done what it was asked.
type Answer struct {
	Version int `json:"version"`
	// Error says why it has not.
	Error string `json:"error,omitempty"`

	Sandbox   string `json:"sandbox"`
	Namespace string `json:"namespace"` // containerd's
	Inner     string `json:"inner"`     // path of the inner shim
	// Pod and PodNamespace are empty for containers that are in none.
	Pod          string      `json:"pod,omitempty"`
	PodNamespace string      `json:"pod_namespace,omitempty"`
	Containers   []Container `json:"containers,omitempty"`

	On bool `json:"on"`
	// Changed reports whether it was not so before.
	Changed bool `json:"changed,omitempty"`
	// Window is the time for which tracing is on, or was the last time.
	Window *Window `json:"window,omitempty"`
	// Unrecorded counts the spans of agents and runtimes that were dropped because
	// they are of times when tracing was off.
	Unrecorded uint64 `json:"unrecorded,omitempty"`
	// Configuration is what the relay follows; nil: it is older than that.
	Configuration *Configuration `json:"configuration,omitempty"`
	// Facts are the relay's own; nil: it is older than they are.
	Facts *Facts `json:"facts,omitempty"`
}

// Facts are what a relay knows of its work. Those that it does not have, or that it is too
// old to know, are nil.
type Facts struct {
	PID int `json:"pid"`
	// Resumed counts the processes before this one.
	Resumed int `json:"resumed"`
	// Recorded counts the spans that this process has written to the journal.
	Recorded *uint64 `json:"recorded_spans,omitempty"`
	// Waiting are the spans that have ended and are not in the journal; Held are the
	// agent's and the runtime's that wait for their parents.
	Waiting *int64 `json:"waiting_spans,omitempty"`
	Held    *int64 `json:"held_spans,omitempty"`
	// Reparented counts the agent's and the runtime's spans whose cause was inferred, and
	// Placeholders the parents that never came.
	Reparented   *uint64 `json:"reparented_spans,omitempty"`
	Placeholders *uint64 `json:"placeholder_spans,omitempty"`
	// Clock is the guest's; nil: nothing is known of it.
	Clock *Clock `json:"guest_clock,omitempty"`
}

// Clock is what is known of a guest's clock.
type Clock struct {
	// Offset turns the guest's times into the host's.
	Offset time.Duration `json:"offset_ns"`
	// Set is how often it was set.
	Set int `json:"set"`
}

// Container is a container of a sandbox.
type Container struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// Window is a time for which tracing is on.
type Window struct {
	TraceID string `json:"trace_id"`
	// Sampled: the sampler has chosen the trace. If not, only calls of those that
	// trace themselves are recorded, in their traces.
	Sampled bool      `json:"sampled"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // when it ends by itself
	Ended   time.Time `json:"ended,omitzero"`
}
