// Package export brings spans from the process that records them to the journal
// on disk, without ever holding that process up.
//
// It is linked in the shim, so it holds no network code. [NewTracerProvider]
// makes OpenTelemetry's SDK as shimtrace wants it: ids that can be known before
// their span ([ContextWithIDs]), a sampler by its configured name, and a
// [Processor] that queues ended spans within bounds and counts what it drops. The
// processor's exporter writes to a journal (package journal). [Keeper] sees to it
// that one process per host sends the journal to the collector; that process is
// the operator's tool (packages ship and otlp), and the shim only starts it.
package export
