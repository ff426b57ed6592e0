// Package backends tests shimtrace against real backends: what they show is compared with
// the journal, span by span.
package backends
