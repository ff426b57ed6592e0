package collate

import "github.com/shimtrace/shimtrace/internal/forwarder/calls"

// Reason says why a span does not reach the sink.
type Reason = calls.Reason

const (
	Quiet     = calls.Quiet
	unsampled = calls.Unsampled
	// Off: it is of a time when tracing was switched off.
	Off Reason = "off"
	// Duplicate: a span with its id has been here.
	Duplicate Reason = "duplicate"
	// Collision: its id is that of a span of the host's.
	Collision Reason = "collision"
)

// Stats counts what a Collator did. Of the spans added, each is sent, dropped or
// held.
type Stats struct {
	// Added and Sent are spans; Sent does not include the placeholders.
	Added, Sent, Dropped uint64
	// Held spans of HeldBytes wait now; Awaited parents of spans sent are missing
	// now.
	Held, HeldBytes, Awaited int
	// Placeholders stand for parents that never came.
	Placeholders uint64
	// Rewritten spans were sent in another trace than the guest said.
	Rewritten uint64
	// Inferred is how often something missing got its place by inference.
	Inferred uint64
	// Cut spans named a parent below themselves, or one in a trace that their
	// children are not in, and got another.
	Cut uint64
	// Corrected spans had their times shifted, or clipped.
	Corrected uint64
}
