// Package export brings spans from the process that records them to the journal on
// disk. It never holds that process up.
//
// It is linked into the shim, so it holds no network code. [NewTracerProvider] sets up
// OpenTelemetry's SDK: ids that can be known before their span ([ContextWithIDs]), a
// sampler by its configured name, and a [Processor] that queues ended spans within
// bounds and counts those it drops. The processor's exporter writes to a journal
// (package journal). [Keeper] makes sure that one process per host sends the journal to
// the collector. That process is the operator's tool (packages ship and otlp); the shim
// only starts it.
package export
