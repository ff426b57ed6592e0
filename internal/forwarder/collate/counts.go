package collate

import "github.com/shimtrace/shimtrace/internal/forwarder/calls"

// Reason says why a span does not reach the sink.
type Reason = calls.Reason

const (
	Quiet     = calls.Quiet
	unsampled = calls.Unsampled
	// Off: tracing was switched off at its time.
	Off Reason = "off"
	// Duplicate: a span with its id has arrived before.
	Duplicate Reason = "duplicate"
	// Collision: a span of the host has its id.
	Collision Reason = "collision"
)

// Stats counts what a Collator did. Each added span is sent, dropped or held.
type Stats struct {
	// Added and Sent are spans; Sent does not include the placeholders.
	Added, Sent, Dropped uint64
	// Held spans, HeldBytes in all, are waiting; Awaited parents of sent spans are missing.
	Held, HeldBytes, Awaited int
	// Placeholders stand for parents that never came.
	Placeholders uint64
	// Rewritten spans were sent in another trace than the one they came with.
	Rewritten uint64
	// Inferred is how often a cause was inferred for something missing.
	Inferred uint64
	// Cut spans named a parent below themselves, or in another trace than their children's, and
	// got another one.
	Cut uint64
	// Corrected spans had their times shifted, or clipped.
	Corrected uint64
}
