// Package export brings spans from the process that records them to the journal on
// disk. It never holds that process up.
//
// It is linked into the shim, so it holds no network code. [NewTracerProvider] makes
// spans by OpenTelemetry's API as its SDK does (a fuzz test compares them), with ids that can
// be known before their span ([ContextWithSampled]) and a sampler by its configured name. A
// [Queue] gathers ended spans within bounds, counts those it drops, and appends batches to a
// journal (package journal). [Keeper] makes sure that one process per host sends the journal to
// the collector. That process is the operator's tool (packages ship and client); the shim
// only starts it.
package export
