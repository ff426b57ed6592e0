package names

// Metrics of shimtrace's own, as in docs/operation.md.
const (
	MetricStartDuration  = "shimtrace.sandbox.start.duration"
	MetricSpanRecorded   = "shimtrace.span.recorded"
	MetricSpanLost       = "shimtrace.span.lost"
	MetricSpanReparented = "shimtrace.span.reparented"
	MetricJournalSize    = "shimtrace.journal.size"
	MetricJournalLimit   = "shimtrace.journal.limit"
	MetricShareSize      = "shimtrace.journal.share.size"
	MetricRelayCount     = "shimtrace.relay.count"
)

// Attributes of metrics.
const (
	MetricJournal    = "shimtrace.journal"     // the directory
	MetricOrigin     = "shimtrace.span.origin" // who made spans
	MetricShare      = "shimtrace.share"       // whose part of a journal
	MetricRelayState = "shimtrace.relay.state"
)
