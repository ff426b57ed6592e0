package losses

import "fmt"

// Reason says why a span was lost. 0 is no reason.
type Reason uint8

const (
	_ Reason = iota

	QueueFull
	Shutdown
	RelayDied
	Panic
	ProcessEvents

	DiskFull
	WriteFailed
	NotTaken
	JournalLocked
	TooLarge
	OverShare
	JournalFull
	Retention

	CollectorRefused
	CollectorRefusedSome
	CollectorTooLarge
	CollectorFails
	Undecodable
	KeptOut

	SpanRate
	ByteRate
	CPU
	VMs

	Oversized
	CutShort
	Truncated
	Malformed
	NotText
	NoIdentity
	Duplicate
	Collision

	RefusedPost
	OversizedPost
	CutShortPost
	BusyPost
	MalformedPost
	TooMany
	Unchecked
	NoDescriptors
	UnknownSandbox
	HeldFull
	RelayGone
	EndpointGone
	EndpointStopped

	reasons
)

// words are the reasons' names, in journals, reports and documents, and their meanings.
var words = [reasons]struct{ name, meaning string }{
	QueueFull:     {"queue_full", "they arrived faster than they could be written, collated, or taken by their relay"},
	Shutdown:      {"shutdown", "the process ended before it could pass them on in time"},
	RelayDied:     {"relay_died", "the relay died with calls in flight or spans waiting"},
	ProcessEvents: {"process_events", "the kernel, or a relay with more helpers than its bound, dropped process events: each call in flight then counts, below which helpers may be missing or have inexact times"},
	Panic:         {"panic", "a bug in shimtrace: processing them panicked"},

	DiskFull:      {"disk_full", "the journal's disk was full"},
	WriteFailed:   {"write_failed", "the journal's disk failed"},
	NotTaken:      {"not_taken", "in reports of `shimtrace forward`: the journal did not take them, and counts the reason itself"},
	JournalLocked: {"journal_locked", "stopped processes held the locks of several segments"},
	TooLarge:      {"too_large", "a single span exceeds a record (the smaller of 1 MiB and `journal.segment_bytes`), or a relay's limit"},
	OverShare:     {"over_share", "`journal.max_bytes` was reached, and the sandbox had more than an eighth of it and more than its share, while others did not"},
	JournalFull:   {"journal_full", "`journal.max_bytes` was reached before the collector took them"},
	Retention:     {"retention", "`journal.max_bytes` was reached, and nothing ships this journal: no loss, but the end of their retention"},

	CollectorRefused:     {"collector_refused", "the collector refused them, in OTLP"},
	CollectorRefusedSome: {"collector_refused_some", "the collector refused some spans of an upload and took the rest"},
	CollectorTooLarge:    {"collector_too_large", "the collector refused an upload of this single span as too large"},
	CollectorFails:       {"collector_fails", "the collector, or a proxy before it, failed on them repeatedly while others were taken"},
	Undecodable:          {"undecodable", "a record was intact but not OTLP"},
	KeptOut:              {"kept_out", "`only` of `[export]` leaves their sandbox out: no loss, they stay in the journal until its end"},

	SpanRate: {"span_rate", "the sandbox sent more spans than `[agent.limits]` allows"},
	ByteRate: {"byte_rate", "it sent more bytes than allowed, or spans that take more memory"},
	CPU:      {"cpu", "its spans took more processor time than allowed"},
	VMs:      {"vms", "there were too many VMs"},

	Oversized:  {"oversized", "the frame exceeds its limit"},
	CutShort:   {"cut_short", "the connection ended within the frame"},
	Truncated:  {"truncated", "the span ends inside a field"},
	Malformed:  {"malformed", "the span violates its encoding"},
	NotText:    {"not_text", "a text to be kept is not UTF-8"},
	NoIdentity: {"no_identity", "its trace id or span id is zero"},
	Duplicate:  {"duplicate", "a span with its id was received before"},
	Collision:  {"collision", "its id is also the id of a span of the host"},

	RefusedPost:     {"refused_post", "the endpoint does not take such posts: another method, path, content type or encoding. An unread post counts as one span, since their number is unknown"},
	OversizedPost:   {"oversized_post", "a post exceeds its limit"},
	CutShortPost:    {"cut_short_post", "a post did not arrive completely and in time"},
	BusyPost:        {"busy_post", "too many posts were waiting to be decoded"},
	MalformedPost:   {"malformed_post", "a post violates its encoding"},
	TooMany:         {"too_many", "a post had too many spans"},
	Unchecked:       {"unchecked", "the client could not be identified, and was not read"},
	NoDescriptors:   {"no_descriptors", "the endpoint could open no more files"},
	UnknownSandbox:  {"unknown_sandbox", "their sandbox was not known in time"},
	HeldFull:        {"held_full", "their sandbox was not known, and there was no room to wait"},
	RelayGone:       {"relay_gone", "the sandbox's relay ended before it had taken them"},
	EndpointGone:    {"endpoint_gone", "the endpoint was killed"},
	EndpointStopped: {"endpoint_stopped", "the endpoint had been stopped, and had not read these posts when it was replaced"},
}

// String returns the reason's name.
func (r Reason) String() string {
	if r > 0 && r < reasons {
		return words[r].name
	}
	return fmt.Sprintf("reason_%d", uint8(r))
}

// MarshalText implements [encoding.TextMarshaler].
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Meaning returns the reason's explanation, as printed in the documents.
func (r Reason) Meaning() string { return words[r].meaning }

// All returns all reasons.
func All() (all []Reason) {
	for r := Reason(1); r < reasons; r++ {
		all = append(all, r)
	}
	return all
}
