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
	OtherVM
	RelayGone
	EndpointGone
	EndpointStopped

	reasons
)

// words are the reasons' names, in journals, reports and documents, and their meanings.
var words = [reasons]struct{ name, meaning string }{
	QueueFull: {"queue_full", "they came faster than they could be written, be given their place, or be taken by their relay"},
	Shutdown:  {"shutdown", "the time to pass them on at a process's end was over"},
	RelayDied: {"relay_died", "the relay died: what it had of calls in flight, and what waited in it"},
	Panic:     {"panic", "a fault of ours: whoever took them failed on them"},

	DiskFull:      {"disk_full", "the journal's disk took no more"},
	WriteFailed:   {"write_failed", "the journal's disk failed"},
	NotTaken:      {"not_taken", "in reports of `shimtrace forward`: the journal did not take them, and counts why itself"},
	JournalLocked: {"journal_locked", "stopped processes hold the locks of several segments"},
	TooLarge:      {"too_large", "one span alone is larger than a record (the smaller of 1 MiB and `journal.segment_bytes`), or than a relay takes"},
	OverShare:     {"over_share", "`journal.max_bytes` was reached, and the sandbox had more than an eighth of it and more than its share, while others had not"},
	JournalFull:   {"journal_full", "`journal.max_bytes` was reached before the collector had them"},
	Retention:     {"retention", "`journal.max_bytes` was reached, and nothing ships this journal: no loss, but their end"},

	CollectorRefused:     {"collector_refused", "the collector answered, in OTLP, that it will not take them"},
	CollectorRefusedSome: {"collector_refused_some", "the same of some of an upload, of which it took the rest"},
	CollectorTooLarge:    {"collector_too_large", "the collector takes no upload as large as a single span's"},
	CollectorFails:       {"collector_fails", "the collector, or what stands before it, failed on them again and again while it took others"},
	Undecodable:          {"undecodable", "a record is intact but no OTLP"},

	SpanRate: {"span_rate", "the sandbox sent more spans than `[agent.limits]` lets it"},
	ByteRate: {"byte_rate", "it sent more bytes, or what takes more in memory"},
	CPU:      {"cpu", "its spans took more processor time"},
	VMs:      {"vms", "there were too many VMs"},

	Oversized:  {"oversized", "the frame is longer than may be"},
	CutShort:   {"cut_short", "the connection ended within it"},
	Truncated:  {"truncated", "the span ends inside a field"},
	Malformed:  {"malformed", "it is not what its encoding prescribes"},
	NotText:    {"not_text", "a text that would be kept is not UTF-8"},
	NoIdentity: {"no_identity", "its trace id or span id is zero"},
	Duplicate:  {"duplicate", "a span with its id has been there"},
	Collision:  {"collision", "its id is that of a span of the host's"},

	RefusedPost:     {"refused_post", "a post is none that the endpoint takes: another method, path, content type or encoding. How many spans a post has that could not be read nobody knows: it counts as one"},
	OversizedPost:   {"oversized_post", "a post is longer than may be"},
	CutShortPost:    {"cut_short_post", "a post did not arrive whole, or not in time"},
	BusyPost:        {"busy_post", "there was no room among the posts that wait to be decoded"},
	MalformedPost:   {"malformed_post", "a post is not what its encoding prescribes"},
	TooMany:         {"too_many", "a post had more spans than may be"},
	Unchecked:       {"unchecked", "who connected could not be told, and so was not listened to"},
	NoDescriptors:   {"no_descriptors", "the endpoint could open no more files"},
	UnknownSandbox:  {"unknown_sandbox", "nothing told, in time, of which sandbox they are"},
	HeldFull:        {"held_full", "the same, and there was no room to wait"},
	OtherVM:         {"other_vm", "the VM is not received from"},
	RelayGone:       {"relay_gone", "the sandbox's relay ended before it had taken them"},
	EndpointGone:    {"endpoint_gone", "the endpoint was killed"},
	EndpointStopped: {"endpoint_stopped", "the endpoint was stopped, and had not read these posts when it was replaced"},
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
